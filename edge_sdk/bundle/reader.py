"""Reading a bundle: everything small is verified on opening, weights by ``verify``.

Nothing is believed: digests, sizes, media types, paths and schema versions are
checked on the way from ``index.json`` to the variant record, so a damaged or
hostile bundle ends in a :class:`BundleError` that names the blob or key.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from edge_sdk.bundle import measurements, oci
from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.layers import RECORD_FILE
from edge_sdk.bundle.measurements import VariantReport
from edge_sdk.bundle.oci import Descriptor, Index, Layout, Manifest, Platform
from edge_sdk.bundle.record import SCHEMA, Blob, VariantRecord
from edge_sdk.errors import BundleError

RECORD_LIMIT = 32 * 1024 * 1024
"""Largest variant record that is read, in bytes."""
_OTHER = "it was not written by this product, or by a newer version of it"


@dataclass(frozen=True)
class Variant:
    """One variant of a bundle, its structure verified, its weights not yet.

    Attributes:
        record: What the variant is.
        descriptor: Its manifest; ``descriptor.digest`` is the variant's identity.
        manifest: Its layers.
        platform: The OCI platform; ``None`` where a tool copied one manifest without its index.
        report: What was measured, where the bundle carries it.
        blobs: Where its blobs are.
    """

    record: VariantRecord
    descriptor: Descriptor
    manifest: Manifest
    platform: Platform | None
    report: VariantReport | None
    blobs: BlobStore

    @property
    def profile(self) -> str:
        """The device profile it is for."""
        return self.record.profile

    @property
    def digest(self) -> str:
        """Digest of the manifest."""
        return self.descriptor.digest

    @cached_property
    def files(self) -> dict[str, Descriptor]:
        """Path -> layer, in the manifest's order."""
        return {layer.annotations[oci.FILEPATH]: layer for layer in self.manifest.layers}

    @cached_property
    def all_blobs(self) -> tuple[Blob, ...]:
        """Every blob it needs, each once: manifest, config and layers."""
        parts = (self.descriptor, self.manifest.config, *self.manifest.layers)
        return tuple(dict.fromkeys(part.blob for part in parts))

    @property
    def size(self) -> int:
        """Bytes on disk if nothing were shared."""
        return sum(blob.size for blob in self.all_blobs)

    def blob_path(self, digest: str) -> Path:
        """The file that holds a blob; siblings of a graph's file are its weights."""
        return self.blobs.path(digest)

    def verify(self, *, graphs: bool = True) -> None:
        """Reads and hashes every blob of the variant.

        Args:
            graphs: Whether the graphs and their weights too.

        Raises:
            DigestError: Bytes do not match; ``where`` names the blob and its path.
            BundleError: A blob is missing or of another size.
        """
        left_out = {
            blob.digest
            for graph in self.record.graphs
            for blob in (*graph.parts, *graph.weights)
            if not graphs
        }
        for blob in self.all_blobs:
            if blob.digest not in left_out:
                self.verify_blob(blob)

    def verify_blob(self, blob: Blob) -> None:
        """Reads and hashes one of the variant's blobs; raises as :meth:`verify` does."""
        with _naming(self._part_name(blob.digest)):
            self.blobs.verify(blob)

    def _part_name(self, digest: str) -> str:
        named = (path for path, layer in self.files.items() if layer.digest == digest)
        return next(named, "manifest" if digest == self.digest else "config")


@dataclass(frozen=True)
class Bundle:
    """One version of a model: a variant per device profile."""

    path: Path
    descriptor: Descriptor
    variants: tuple[Variant, ...]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.variants[0].record.name

    @property
    def version(self) -> str:
        """The model's version."""
        return self.variants[0].record.version

    def variant(self, profile: str) -> Variant:
        """The variant for a device profile.

        Raises:
            BundleError: There is none; the message lists those there are.
        """
        for variant in self.variants:
            if variant.profile == profile:
                return variant
        available = ", ".join(variant.profile for variant in self.variants)
        raise BundleError(
            f"no variant for profile {profile!r}",
            where=str(self.path),
            remedy=f"choose one of: {available}",
        )

    def verify(self) -> None:
        """Reads and hashes every blob; raises as :meth:`Variant.verify` does."""
        for variant in self.variants:
            variant.verify()


def open_bundle(path: str | Path) -> Bundle:
    """Opens a bundle directory and verifies all of its structure.

    Args:
        path: An OCI image layout with one bundle, or one of several in a store:
            ``STORE#name``, ``STORE#name:version``.

    Raises:
        DigestError: A document does not match its digest.
        BundleError: Anything else that is missing, malformed, unsafe or too new.
    """
    root, name = Path(path), ""
    if not root.exists() and "#" in root.name:
        folder, _, name = str(root).rpartition("#")
        root = Path(folder)
    known = read_layout(root)
    entries = [entry for entry in known if not name or name in _names(entry)]
    if len(entries) != 1:
        named = f" named {name}" if name else ""
        names = ", ".join(f"{root}#{_names(entry)[-1]}" for entry in known)
        raise BundleError(
            f"holds {len(entries) or 'no'} bundles{named}" + (" instead of one" * bool(entries)),
            where=str(root / oci.INDEX_FILE),
            remedy=f"give one of: {names}" if names else "install a bundle first",
        )
    return read_bundle(root, entries[0])


def read_layout(root: Path) -> tuple[Descriptor, ...]:
    """The descriptors in a layout's ``index.json``.

    Raises:
        BundleError: It is not an OCI layout of a version that is known here.
    """
    file = root / oci.LAYOUT_FILE
    layout = oci.decode(_read_file(file), Layout, str(file))
    if layout.image_layout_version != oci.LAYOUT_VERSION:
        raise BundleError(
            f"unknown layout version {layout.image_layout_version!r}",
            where=str(file),
            remedy=_OTHER,
        )
    file = root / oci.INDEX_FILE
    return _index(_read_file(file), str(file)).manifests


def read_bundle(root: Path, descriptor: Descriptor) -> Bundle:
    """Reads the bundle that one entry of a layout's ``index.json`` points at.

    Args:
        root: The layout.
        descriptor: An image index, or the manifest of a single variant.

    Raises:
        DigestError: A document does not match its digest.
        BundleError: Anything else that is missing, malformed, unsafe or too new.
    """
    blobs = BlobStore(root)
    entries = read_manifests(blobs, descriptor)
    variants = tuple(_variant(blobs, entry) for entry in entries)
    if not variants:
        raise BundleError("the bundle has no variant", where=f"blob {descriptor.digest}")
    identities = {(variant.record.name, variant.record.version) for variant in variants}
    profiles = {variant.profile for variant in variants}
    if len(identities) > 1 or len(profiles) < len(variants):
        raise BundleError(
            "variants differ in name or version, or share a profile",
            where=f"blob {descriptor.digest}",
        )
    return Bundle(root, descriptor, variants)


def read_manifests(blobs: BlobStore, descriptor: Descriptor) -> tuple[Descriptor, ...]:
    """The manifests under an entry: those of an image index, or the entry itself.

    Raises:
        DigestError: The image index does not match its digest.
        BundleError: It is missing or malformed, or of another media type.
    """
    where = f"blob {descriptor.digest}"
    if descriptor.media_type == oci.MANIFEST:
        return (descriptor,)
    _expect(descriptor.media_type, oci.INDEX, where)
    entries = _index(blobs.read(descriptor.blob, oci.MANIFEST_LIMIT), where).manifests
    for entry in entries:
        _expect(entry.media_type, oci.MANIFEST, f"blob {entry.digest}")
    return entries


def read_manifest(blobs: BlobStore, descriptor: Descriptor) -> Manifest:
    """Reads and checks one manifest; its layers need not be there.

    Raises:
        DigestError: The manifest does not match its digest.
        BundleError: It is missing, malformed, or has a wrong media type or an unsafe path.
    """
    where = f"blob {descriptor.digest}"
    data = blobs.read(descriptor.blob, oci.MANIFEST_LIMIT)
    manifest = oci.decode(data, Manifest, where)
    _expect(manifest.schema_version, 2, where)
    _expect(manifest.media_type, oci.MANIFEST, where)
    _expect(manifest.artifact_type, oci.MODEL, where)
    _expect(manifest.config.media_type, oci.MODEL_CONFIG, f"{where}: config")
    paths: set[str] = set()
    for number, layer in enumerate(manifest.layers):
        key = f"{where}: layers[{number}]"
        if layer.media_type not in oci.LAYERS:
            raise BundleError(f"unknown media type {layer.media_type!r}", where=key, remedy=_OTHER)
        path = oci.check_path(layer.annotations.get(oci.FILEPATH, ""), f"{key} {oci.FILEPATH}")
        if path in paths:
            raise BundleError(f"two layers have the path {path!r}", where=key)
        paths.add(path)
    return manifest


def _names(entry: Descriptor) -> tuple[str, str]:
    """What a bundle of a store goes by: its name, and its name and version."""
    known = entry.annotations
    return known.get(oci.TITLE, ""), known.get(oci.REF_NAME, "")


def _variant(blobs: BlobStore, descriptor: Descriptor) -> Variant:
    manifest = read_manifest(blobs, descriptor)
    oci.decode(
        blobs.read(manifest.config.blob, oci.MANIFEST_LIMIT),
        oci.ModelConfig,
        f"blob {manifest.config.digest}",
    )
    for layer in manifest.layers:
        with _naming(layer.annotations[oci.FILEPATH]):
            blobs.check(layer.blob)
    record = _record(blobs, descriptor, manifest)
    layers = {layer.blob for layer in manifest.layers}
    for blob in record.blobs():
        if blob not in layers:
            raise BundleError(
                f"refers to {blob.digest} ({blob.size} bytes), which is no layer of the manifest",
                where=f"blob {descriptor.digest} ({RECORD_FILE})",
            )
    annotations = descriptor.annotations
    _expect(annotations.get(oci.PROFILE, record.profile), record.profile, oci.PROFILE)
    report = _report(annotations[oci.REPORT]) if oci.REPORT in annotations else None
    return Variant(record, descriptor, manifest, descriptor.platform, report, blobs)


def _record(blobs: BlobStore, descriptor: Descriptor, manifest: Manifest) -> VariantRecord:
    for layer in manifest.layers:
        if layer.annotations[oci.FILEPATH] == RECORD_FILE:
            where = f"blob {layer.digest} ({RECORD_FILE})"
            data = blobs.read(layer.blob, RECORD_LIMIT)
            _expect(oci.decode(data, _Schema, where).schema, SCHEMA, f"{where}: schema")
            record = oci.decode(data, VariantRecord, where)
            oci.check_name(record.name, f"{where}: name")
            oci.check_name(record.version, f"{where}: version")
            oci.check_name(record.profile, f"{where}: profile")
            return record
    raise BundleError(f"has no {RECORD_FILE}", where=f"blob {descriptor.digest}", remedy=_OTHER)


def _report(text: str) -> VariantReport:
    schema = oci.decode(text.encode(), _Schema, oci.REPORT).schema
    _expect(schema, measurements.SCHEMA, f"{oci.REPORT}: schema")
    return oci.decode(text.encode(), VariantReport, oci.REPORT)


class _Schema(msgspec.Struct):
    schema: str


def _index(data: bytes, where: str) -> Index:
    index = oci.decode(data, Index, where)
    _expect(index.schema_version, 2, where)
    _expect(index.media_type or oci.INDEX, oci.INDEX, where)
    return index


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Adds the path of a layer to the errors about its blob."""
    try:
        yield
    except BundleError as error:
        where = f"{error.where} ({path})"
        raise type(error)(error.message, where=where, remedy=error.remedy) from error


def _expect(found: object, expected: object, where: str) -> None:
    if found != expected:
        raise BundleError(f"found {found!r} instead of {expected!r}", where=where, remedy=_OTHER)


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(oci.MANIFEST_LIMIT)
    except OSError as error:
        raise BundleError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            remedy="give the directory of a bundle or store, with oci-layout and index.json",
        ) from error
