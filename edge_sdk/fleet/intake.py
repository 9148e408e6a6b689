"""Takes bundles into a server's store: the push part of the OCI distribution specification 1.1.

A blob comes in one piece or several, and gets its name only if its digest is right; a tag puts the
bundle on the store's list, once all of it is there. Bundles come at the same time as others are
removed, so what came lately and is on no list yet is spared when blobs are collected.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from edge_sdk.bundle import files, oci
from edge_sdk.bundle.blobs import CHUNK, hex_of
from edge_sdk.bundle.oci import Descriptor
from edge_sdk.bundle.reader import read_bundle
from edge_sdk.bundle.record import Blob
from edge_sdk.bundle.store import Installed, Store
from edge_sdk.errors import BundleError, DigestError, WorkError
from edge_sdk.fleet.shelf import repository, tag

_UPLOAD = re.compile(r"[0-9a-f]{32}")
MEDIA_TYPES = (oci.INDEX, oci.MANIFEST)
SPARED_S = 3600.0
"""Within this time the rest of a bundle must come."""


class Intake:
    """Puts things into a store.

    Args:
        root: The store; created by the first blob.
    """

    def __init__(self, root: Path) -> None:
        self._store = Store(root)
        self._blobs = self._store.blobs
        # Held while a blob gets its place, and while blobs are collected.
        self._lock = threading.Lock()
        # Repository and digest -> when it came, of what is on no list yet.
        self._loose: dict[tuple[str, str], float] = {}

    async def append(self, upload: str, pieces: AsyncIterator[bytes]) -> int:
        """Takes a part of an upload; the number of bytes there are now.

        Of an upload that breaks off nothing is kept.

        Raises:
            BundleError: It is no name of an upload.
            WorkError: The file system refused.
        """
        path = self._file(upload)
        await run_in_threadpool(self._blobs.prepare)
        try:
            with files.writing(path), path.open("ab") as file:
                async for piece in pieces:
                    await run_in_threadpool(file.write, piece)
                return file.tell()
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    async def finish(
        self, name: str, upload: str, digest: str, pieces: AsyncIterator[bytes]
    ) -> None:
        """Takes the last part of an upload, which is a blob of a repository from then on.

        Raises:
            DigestError: The bytes are others; nothing is kept.
            BundleError: It is no name of an upload, or no digest.
            WorkError: The file system refused.
        """
        target, path = self._blobs.path(digest), self._file(upload)
        try:
            await self.append(upload, pieces)
            await run_in_threadpool(self._place, path, name, digest, target)
        finally:
            path.unlink(missing_ok=True)

    def claim(self, name: str, digest: str) -> bool:
        """Whether a blob is there, for who would push it otherwise; then it stays for a while."""
        with self._lock:
            found = self._blobs.path(digest).is_file()
            if found:
                self._loose[name, digest] = time.monotonic()
        return found

    def _file(self, upload: str) -> Path:
        if not _UPLOAD.fullmatch(upload):
            raise BundleError(f"there is no upload {upload!r}")
        return self._blobs.temporary / f"upload-{upload}"

    def document(self, name: str, reference: str, media_type: str, data: bytes) -> Descriptor:
        """Takes an image index or manifest; by a tag, the bundle is on the list afterwards.

        Args:
            name: The repository.
            reference: A tag or a digest.
            media_type: What it is.
            data: Its bytes.

        Raises:
            BundleError: It is no bundle, a blob is missing, or it goes by another name.
            WorkError: The file system refused.
        """
        if media_type not in MEDIA_TYPES:
            raise BundleError(f"{media_type!r} is neither an image index nor a manifest")
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        expected = Blob(digest=reference, size=len(data)) if ":" in reference else None
        with self._lock:
            blob = self._blobs.put([data], expect=expected)
            self._loose[name, digest] = time.monotonic()
        descriptor = Descriptor(media_type=media_type, digest=digest, size=blob.size)
        if expected is None:
            self._enter(name, reference, descriptor)
        return descriptor

    def remove(self, entry: Installed) -> None:
        """Takes a bundle off the list, and what nothing else needs off the disk, if it can be now.

        Raises:
            WorkError: The file system refused.
        """
        self._store.remove(entry.name, entry.version)
        since = time.monotonic() - SPARED_S
        # Where others are at it, or something else is damaged, the next collection gets it.
        with self._lock, suppress(BundleError, WorkError):
            self._loose = {key: came for key, came in self._loose.items() if came > since}
            loose = {hex_of(digest) for _, digest in self._loose}
            self._store.gc(spare=lambda path: path.name in loose or self._is_young(path))

    def _is_young(self, path: Path) -> bool:
        """Whether a file may be one that is being written."""
        with suppress(FileNotFoundError):
            age = time.time() - path.stat().st_mtime
            return path.parent == self._blobs.temporary and age < SPARED_S
        return True

    def _enter(self, name: str, reference: str, descriptor: Descriptor) -> None:
        bundle = read_bundle(self._store.root, descriptor)
        wanted = f"{repository(bundle.name)}:{tag(bundle.version)}"
        if f"{name}:{reference}" != wanted:
            raise BundleError(
                f"this server keeps {bundle.name} {bundle.version} under its own name",
                where=f"{name}:{reference}",
                remedy=f"push it to {wanted}",
            )
        for variant in bundle.variants:
            for blob in variant.all_blobs:
                self._blobs.check(blob)
        self._store.enter(descriptor, descriptor.digest)
        listed = {blob.digest for variant in bundle.variants for blob in variant.all_blobs}
        with self._lock:
            for digest in (descriptor.digest, *listed):
                self._loose.pop((name, digest), None)

    def _place(self, path: Path, name: str, digest: str, target: Path) -> None:
        """Gives a file the name that its bytes hash to, if that is the target's."""
        found = hashlib.sha256()
        with files.writing(path), path.open("rb") as file:
            while piece := file.read(CHUNK):
                found.update(piece)
            if found.hexdigest() != target.name:
                raise DigestError(
                    f"bytes are sha256:{found.hexdigest()}", where=f"blob {target.name}"
                )
            with self._lock:
                files.commit(file, target)
                self._loose[name, digest] = time.monotonic()
