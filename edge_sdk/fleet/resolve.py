"""What a reference that somebody deploys stands for: digest, version, and for which devices."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edge_sdk.bundle import oci
from edge_sdk.bundle.oci import Descriptor, Index, Manifest, ModelConfig
from edge_sdk.bundle.record import Blob
from edge_sdk.bundle.store import Store
from edge_sdk.errors import BundleError, DigestError
from edge_sdk.fleet.shelf import repository, tag
from edge_sdk.transport.registry import RegistrySource
from edge_sdk.transport.source import Reference

_OWN = re.compile(r"(?P<name>[^/@:]+)(?::(?P<version>[^/@:]+))?")
T = TypeVar("T", Index, Manifest)


@dataclass(frozen=True)
class Resolved:
    """A bundle that devices can be asked to run.

    Attributes:
        ref: Where devices find it.
        digest: Of its image index, or of its only manifest.
        name: The model's name.
        version: The model's version.
        profiles: Device profiles that it has a variant for.
    """

    ref: str
    digest: str
    name: str
    version: str
    profiles: tuple[str, ...]


def resolve(text: str, store: Path, own: str, *, plain_http: bool = False) -> Resolved:
    """Looks a reference up.

    Args:
        text: ``name`` or ``name:version`` of the server's own store, or
            ``host[:port]/repository:tag`` of a registry.
        store: The server's own store.
        own: ``host:port``, after ``http://`` where it is not HTTPS, by which devices reach it.
        plain_http: Whether the registry speaks HTTP.

    Raises:
        ConfigError: It is no reference.
        BundleError: It stands for nothing here, or for something that is no bundle.
        TransferError: The registry is not reached or refuses.
    """
    if match := _OWN.fullmatch(text):
        return _in_store(Store(store), match["name"], match["version"], own)
    reference = Reference.parse(f"http://{text}" if plain_http and "://" not in text else text)
    source = RegistrySource()
    try:
        return _in_registry(source, reference)
    finally:
        source.close()


def _in_store(store: Store, name: str, version: str | None, own: str) -> Resolved:
    if not store.root.exists():
        raise BundleError(
            "this server's store is empty",
            where=str(store.root),
            remedy=f"edge-sdk store install BUNDLE --store {store.root}, or name a registry:"
            " host/repository:tag",
        )
    bundle = store.open(name, version)
    entry = next(e for e in store.ls() if (e.name, e.version) == (bundle.name, bundle.version))
    return Resolved(
        ref=str(Reference.parse(f"{own}/{repository(bundle.name)}:{tag(bundle.version)}")),
        digest=entry.descriptor.digest,
        name=bundle.name,
        version=bundle.version,
        profiles=tuple(variant.profile for variant in bundle.variants),
    )


def _in_registry(source: RegistrySource, reference: Reference) -> Resolved:
    found = source.resolve(reference)
    manifests: tuple[Descriptor, ...] = (found,)
    if found.media_type == oci.INDEX:
        manifests = _document(source, reference, found, Index).manifests
    if not manifests:
        raise BundleError("the bundle has no variant", where=str(reference))
    manifest = _document(source, reference, manifests[0], Manifest)
    if manifest.artifact_type != oci.MODEL:
        raise BundleError(f"is {manifest.artifact_type!r}, not a bundle", where=str(reference))
    model = oci.decode(
        _small(source, reference, manifest.config.blob), ModelConfig, str(reference)
    ).descriptor
    profiles = (manifest.annotations.get(oci.PROFILE, "") for manifest in manifests)
    return Resolved(
        ref=str(reference),
        digest=found.digest,
        name=model.name,
        version=model.version,
        profiles=tuple(filter(None, profiles)),
    )


def _document(
    source: RegistrySource, reference: Reference, descriptor: Descriptor, type_: type[T]
) -> T:
    data = source.document(reference, descriptor).data
    return oci.decode(_checked(data, descriptor.blob, reference), type_, str(reference))


def _small(source: RegistrySource, reference: Reference, blob: Blob) -> bytes:
    data = bytearray()
    for piece in source.read(reference, blob):
        data += piece.data
        if len(data) > oci.MANIFEST_LIMIT:
            break
    return _checked(bytes(data), blob, reference)


def _checked(data: bytes, blob: Blob, reference: Reference) -> bytes:
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != blob.digest:
        raise DigestError(f"the registry gives other bytes for {blob.digest}", where=str(reference))
    return data
