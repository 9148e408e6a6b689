"""Compressed copies of a variant's small blobs, for registries that do not compress.

Registries keep bytes as they are, and a digest is that of a blob's own bytes. So beside a
variant's manifest goes an artifact whose layers are xz files, each of one blob or of several one
after another. Blobs that name others by digest (manifest, config, record, graphs) change in every
version, and together: they are one file, in which each digest costs its bytes only once.

The artifact is tagged after the manifest that it is for, as signatures are (``sha256-….xz``).
It is an offer: what it holds is hashed like all else, and without it blobs come as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import msgspec

from edge_sdk.bundle import oci
from edge_sdk.bundle.blobs import hex_of
from edge_sdk.bundle.oci import Descriptor, Manifest
from edge_sdk.bundle.reader import Variant
from edge_sdk.bundle.record import Blob
from edge_sdk.errors import BundleError
from edge_sdk.transport.packing import PACKED_UP_TO, pack

ARTIFACT = "application/vnd.edge-sdk.shrunk.v1"
LAYER = "application/vnd.edge-sdk.shrunk.v1.xz"
EMPTY = "application/vnd.oci.empty.v1+json"
HOLDS = "org.edge-sdk.holds"
TOGETHER_UP_TO = 2 * PACKED_UP_TO
"""Most bytes of blobs in one file: whoever reads it holds them in memory."""
_DICTIONARY = 2 * 1024 * 1024  # bytes that a reader needs beside; documents are rarely larger
_MEMORY = 16 * 1024 * 1024
_WORTH = 8 * 1024  # bytes that it must spare, for its own manifest and a request more


class File(NamedTuple):
    """A compressed file: itself, and the blobs that it holds, in order."""

    blob: Blob
    holds: tuple[Blob, ...]


class Shrunk(NamedTuple):
    """The artifact: its manifest, and the files that this names by digest."""

    manifest: bytes
    files: dict[str, bytes]


def tag_of(digest: str) -> str:
    """The tag under which the artifact for a manifest is found."""
    return f"sha256-{hex_of(digest)}.xz"


def shrink(variant: Variant) -> Shrunk | None:
    """The artifact for a variant; ``None`` where it would spare little.

    Raises:
        BundleError: A blob is damaged.
    """
    lzma = _lzma()
    if lzma is None:
        return None
    names = {hex_of(blob.digest).encode() for blob in variant.all_blobs}
    together = [variant.descriptor.blob, variant.manifest.config.blob]
    others: list[Blob] = []
    for layer in variant.manifest.layers:
        if layer.size > PACKED_UP_TO or layer.blob in (*together, *others):
            continue
        data = variant.blobs.read(layer.blob, PACKED_UP_TO)
        if layer.media_type == oci.WEIGHT_CONFIG and any(name in data for name in names):
            together.append(layer.blob)
        elif pack(data) is not None:
            others.append(layer.blob)
    groups = [tuple(together), *((blob,) for blob in others)]
    if sum(blob.size for blob in together) > TOGETHER_UP_TO:
        groups[:1] = [(blob,) for blob in together]
    files: dict[str, bytes] = {}
    layers = []
    for group in groups:
        data = b"".join(variant.blobs.read(blob, PACKED_UP_TO) for blob in group)
        small = lzma.compress(data, filters=[_filter(lzma)], check=lzma.CHECK_NONE)
        descriptor = _described(small, LAYER)
        files[descriptor.digest] = small
        holds = msgspec.json.encode(group).decode()
        layers.append(msgspec.structs.replace(descriptor, annotations={HOLDS: holds}))
    spared = sum(blob.size for group in groups for blob in group)
    if spared - sum(map(len, files.values())) < _WORTH:
        return None
    files[_described(b"{}", EMPTY).digest] = b"{}"
    manifest = Manifest(
        schema_version=2,
        media_type=oci.MANIFEST,
        artifact_type=ARTIFACT,
        config=_described(b"{}", EMPTY),
        layers=tuple(layers),
    )
    return Shrunk(oci.encode(manifest), files)


def files_of(manifest: bytes) -> dict[Blob, File]:
    """Blob -> the file that it is in; nothing where that is of no use.

    Args:
        manifest: Of the artifact, from wherever: it is believed in nothing but where to look.
    """
    if _lzma() is None:
        return {}
    try:
        found = oci.decode(manifest, Manifest, ARTIFACT)
        files = [
            File(layer.blob, oci.decode(layer.annotations[HOLDS].encode(), tuple[Blob, ...], HOLDS))
            for layer in found.layers
            if layer.media_type == LAYER and HOLDS in layer.annotations
        ]
    except BundleError:
        return {}
    return {
        blob: file
        for file in files
        for blob in file.holds
        if max(file.blob.size, sum(part.size for part in file.holds)) <= TOGETHER_UP_TO
    }


def unshrink(data: bytes, holds: Sequence[Blob]) -> dict[Blob, bytes]:
    """Those blobs of a file that are what they should be."""
    lzma = _lzma()
    assert lzma is not None, "no file is known without"
    inflate = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MEMORY)
    try:
        whole = inflate.decompress(data, sum(blob.size for blob in holds))
    except lzma.LZMAError:
        return {}
    found, at = {}, 0
    for blob in holds:
        part = whole[at : at + blob.size]
        at += blob.size
        if f"sha256:{hashlib.sha256(part).hexdigest()}" == blob.digest:
            found[blob] = part
    return found


def _described(data: bytes, media_type: str) -> Descriptor:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return Descriptor(media_type=media_type, digest=digest, size=len(data))


def _filter(lzma: ModuleType) -> dict[str, int]:
    return {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": _DICTIONARY}


def _lzma() -> ModuleType | None:
    """Python's module, which may be built without."""
    try:
        import lzma
    except ImportError:
        return None
    return lzma
