"""Bundles in an OCI registry, read over HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from edge_sdk.bundle import oci
from edge_sdk.bundle.oci import Descriptor
from edge_sdk.bundle.record import Blob
from edge_sdk.errors import BundleError, TransferError
from edge_sdk.transport import shrunk
from edge_sdk.transport.registry_http import ACCEPT, RegistryClient, read_pieces, read_whole
from edge_sdk.transport.source import Piece, Reference

PIECE = 128 * 1024
"""Bytes that are read from a connection at a time."""
_GZIP = {"Accept-Encoding": "gzip"}


class _MediaType(msgspec.Struct, rename="camel"):
    media_type: str = ""


class RegistrySource:
    """A :class:`~edge_sdk.transport.source.BlobSource` over the OCI distribution protocol.

    Args:
        client: Sends the requests, and is closed with this; one with defaults unless given.
    """

    def __init__(self, client: RegistryClient | None = None) -> None:
        self._client = client or RegistryClient()
        self._resolved: dict[str, Piece] = {}
        self._compresses = False
        self._shrunk: dict[Blob, shrunk.File] = {}
        self._held: dict[Blob, bytes] = {}  # files that hold many blobs, as they came

    def resolve(self, reference: Reference) -> Descriptor:
        """The image index or manifest that a tag or digest stands for.

        Digest and size are computed from the document, whatever the registry says of it.
        """
        found, media_type = self._manifest(reference, reference.digest or reference.tag or "latest")
        digest = f"sha256:{hashlib.sha256(found.data).hexdigest()}"
        self._resolved = {digest: found}
        self._compresses = found.travelled < len(found.data)
        self._shrunk, self._held = {}, {}
        return Descriptor(media_type=media_type, digest=digest, size=len(found.data))

    def document(self, reference: Reference, descriptor: Descriptor) -> Piece:
        """An image index or manifest, whole; its digest is checked by the caller."""
        travelled = 0
        if descriptor.media_type == oci.MANIFEST and not self._compresses:
            travelled = self._look_for_shrunk(reference, descriptor)
            if file := self._shrunk.get(descriptor.blob):
                small = self._small(reference, file)
                self._held[file.blob] = small
                travelled += len(small)
        found = self._resolved.get(descriptor.digest)
        if found is None and (data := self._unshrunk(descriptor.blob)) is not None:
            found = Piece(data, 0)
        if found is None:
            found = self._manifest(reference, descriptor.digest)[0]
        return Piece(found.data, found.travelled + travelled)

    def read(self, reference: Reference, blob: Blob, offset: int = 0) -> Iterator[Piece]:
        """The bytes of a blob from an offset on, in pieces; they are checked by the caller."""
        small, file = b"", None if offset else self._shrunk.get(blob)
        if file and file.holds == (blob,):
            small = self._small(reference, file)
        data = None if offset else self._unshrunk(blob, small)
        if data is not None or small:
            yield Piece(data or b"", len(small))
        if data is not None:
            return
        target = f"blobs/{blob.digest}"
        where = f"{reference.registry}/{reference.repository}/{target}"
        headers = {"Range": f"bytes={offset}-"} if offset else _GZIP
        with self._client.request(
            "GET", reference, target, headers=headers, expect=(200, 206)
        ) as response:
            skip = offset
            if response.status == 206:
                skip = 0
                begins = response.headers.get("Content-Range", "").partition("-")[0]
                if begins != f"bytes {offset}":
                    raise TransferError(
                        f"was asked for bytes from {offset} on and gives {begins!r}",
                        where=where,
                        passing=False,
                    )
            for data, travelled in read_pieces(response, where, PIECE):
                yield Piece(data[skip:], travelled)
                skip = max(0, skip - len(data))

    def close(self) -> None:
        """Closes the connections; what is being read meanwhile breaks off."""
        self._client.close()
        self._held.clear()

    def _look_for_shrunk(self, reference: Reference, descriptor: Descriptor) -> int:
        """Notes which of a variant's blobs can be had compressed; the bytes that this took."""
        target = f"manifests/{shrunk.tag_of(descriptor.digest)}"
        try:
            with self._client.request("GET", reference, target, headers=ACCEPT | _GZIP) as response:
                found = read_whole(response, target, oci.MANIFEST_LIMIT)
        except TransferError:  # there is none, as a rule; what else it may be shows without it too
            return 0
        self._shrunk |= shrunk.files_of(found.data)
        return found.travelled

    def _small(self, reference: Reference, file: shrunk.File) -> bytes:
        """A compressed file; nothing where it does not come."""
        target = f"blobs/{file.blob.digest}"
        try:
            with self._client.request("GET", reference, target) as response:
                return read_whole(response, target, file.blob.size).data
        except TransferError:
            return b""

    def _unshrunk(self, blob: Blob, small: bytes = b"") -> bytes | None:
        """A blob out of its compressed file, given or held; ``None`` where it is in none."""
        file = self._shrunk.get(blob)
        small = small or (self._held.get(file.blob, b"") if file else b"")
        return shrunk.unshrink(small, file.holds).get(blob) if file and small else None

    def _manifest(self, reference: Reference, name: str) -> tuple[Piece, str]:
        """A document and its media type."""
        where = f"{reference.registry}/{reference.repository}:{name}"
        with self._client.request(
            "GET", reference, f"manifests/{name}", headers=ACCEPT | _GZIP
        ) as response:
            found = read_whole(response, where, oci.MANIFEST_LIMIT)
            stated = response.headers.get("Content-Type", "").partition(";")[0].strip()
        media_type = oci.decode(found.data, _MediaType, where).media_type or stated
        if media_type not in (oci.INDEX, oci.MANIFEST):
            raise BundleError(
                f"is a {media_type or 'document without media type'}, not a bundle",
                where=where,
                remedy="push a bundle there, or name another repository and tag",
            )
        return found, media_type
