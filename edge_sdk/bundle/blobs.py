"""Content-addressed blobs in the ``blobs/sha256`` folder of an OCI layout.

A blob is written once, streamed through a temporary file, and is at its final
name either complete or absent. Nothing here holds more than one chunk in memory.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edge_sdk.bundle import files
from edge_sdk.bundle.record import Blob
from edge_sdk.errors import BundleError, DigestError

if TYPE_CHECKING:
    from typing_extensions import Buffer

CHUNK = 1024 * 1024
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_DAMAGED = "copy the bundle again: this copy is incomplete or damaged"


def hex_of(digest: str) -> str:
    """The 64 hex digits of a ``sha256:`` digest: the blob's file name.

    Raises:
        BundleError: It is anything else, so no digest can name a file elsewhere.
    """
    match = _DIGEST.fullmatch(digest)
    if not match:
        raise BundleError(f"not a sha256 digest: {digest!r}", remedy=_DAMAGED)
    return match[1]


class BlobStore:
    """The blobs of one OCI layout.

    Args:
        root: The layout's directory; it is created by the first ``put``.

    Attributes:
        folder: The blobs, each named by the hex digits of its digest.
        temporary: Files that are being written.
        partial: Blobs that are being fetched, named in the same way, over many attempts.
        fetching: The lock of who fetches.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "blobs" / "sha256"
        self.temporary = root / "tmp"
        self.partial = root / "partial"
        self.fetching = self.partial / "lock"

    def path(self, digest: str) -> Path:
        """Where the blob of that digest is, or would be."""
        return self.folder / hex_of(digest)

    def put(self, chunks: Iterable[Buffer], expect: Blob | None = None) -> Blob:
        """Stores bytes and returns the blob; does not rewrite a blob that is there.

        The file is durable on return, its directory entry after :meth:`sync`.

        Args:
            chunks: C-contiguous buffers, in order.
            expect: What the bytes must turn out to be; they then replace a blob that is
                there, which may be damaged.

        Raises:
            DigestError: The bytes are not the expected blob; nothing is stored.
            WorkError: The file system refused.
        """
        self.prepare()
        with files.temporary(self.temporary) as file:
            blob = _copy(chunks, file)
            if expect is not None and blob != expect:
                raise DigestError(f"bytes are {blob.digest}", where=f"blob {expect.digest}")
            target = self.path(blob.digest)
            if expect is not None or not _is_file_of(target, blob.size):
                files.commit(file, target)
        return blob

    def adopt(self, source: BlobStore, blob: Blob) -> None:
        """Takes a verified blob over from another layout: by hard link, or else by copy.

        A copy that is already here is verified instead, and replaced if it is damaged.

        Raises:
            DigestError: The source's bytes do not match the digest.
            BundleError: The source does not have the blob.
            WorkError: The file system refused.
        """
        try:
            self.verify(blob)
        except BundleError:
            source.verify(blob)
        else:
            return
        self.prepare()
        with files.writing(self.root):
            linked = files.link(source.path(blob.digest), self.path(blob.digest), self.temporary)
        if not linked:
            self.put(source.chunks(blob), expect=blob)

    def prepare(self) -> None:
        """Creates the folders where absent."""
        with files.writing(self.root):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.temporary.mkdir(exist_ok=True)

    def sync(self) -> None:
        """Makes the directory entries of all blobs put so far durable."""
        for folder in (self.folder, self.folder.parent, self.root):
            files.sync(folder)

    def open(self, blob: Blob) -> IO[bytes]:
        """Opens a blob for reading, after a check of its kind and size.

        Raises:
            BundleError: It is missing, not a regular file, or of another size.
        """
        self.check(blob)
        try:
            return self.path(blob.digest).open("rb")
        except OSError as error:
            raise BundleError(
                f"cannot be read: {error.strerror}", where=f"blob {blob.digest}"
            ) from error

    def check(self, blob: Blob) -> None:
        """Checks that a blob is there with the right size, without reading it.

        Raises:
            BundleError: It is missing, not a regular file, or of another size.
        """
        where = f"blob {blob.digest}"
        try:
            status = self.path(blob.digest).lstat()
        except OSError as error:
            raise BundleError(f"missing: {error.strerror}", where=where, remedy=_DAMAGED) from error
        if not stat.S_ISREG(status.st_mode):
            raise BundleError("not a regular file", where=where, remedy=_DAMAGED)
        if status.st_size != blob.size:
            raise BundleError(
                f"has {status.st_size} bytes instead of {blob.size}", where=where, remedy=_DAMAGED
            )

    def chunks(self, blob: Blob) -> Iterator[memoryview]:
        """Reads a blob piece by piece; each piece is valid until the next."""
        buffer = memoryview(bytearray(min(CHUNK, blob.size) or 1))
        with self.open(blob) as file:
            while count := file.readinto(buffer):  # type: ignore[attr-defined]
                yield buffer[:count]

    def verify(self, blob: Blob) -> None:
        """Reads a blob and compares size and hash.

        Raises:
            DigestError: The bytes do not match the digest.
            BundleError: It is missing or of another size.
        """
        digest = hashlib.sha256()
        for chunk in self.chunks(blob):
            digest.update(chunk)
        _expect_digest(blob, digest.hexdigest())

    def read(self, blob: Blob, limit: int) -> bytes:
        """Reads and verifies a small blob.

        Raises:
            DigestError: The bytes do not match the digest.
            BundleError: It is missing, of another size, or longer than ``limit`` bytes.
        """
        if blob.size > limit:
            raise BundleError(
                f"{blob.size} bytes exceed the limit of {limit}", where=f"blob {blob.digest}"
            )
        with self.open(blob) as file:
            data = file.read(limit)
        _expect_digest(blob, hashlib.sha256(data).hexdigest())
        return data


def _copy(chunks: Iterable[Buffer], file: IO[bytes]) -> Blob:
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += memoryview(chunk).nbytes
        with files.writing(Path(file.name)):
            file.write(chunk)
    return Blob(digest=f"sha256:{digest.hexdigest()}", size=size)


def _expect_digest(blob: Blob, found: str) -> None:
    if found != hex_of(blob.digest):
        raise DigestError(
            f"the bytes hash to sha256:{found}", where=f"blob {blob.digest}", remedy=_DAMAGED
        )


def _is_file_of(path: Path, size: int) -> bool:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size
