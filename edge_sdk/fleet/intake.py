"""Takes bundles into a server's store: the push part of the OCI distribution specification 1.1.

A blob comes in one piece or several, and gets its name only if its digest is right; a tag puts the
bundle on the store's list, once all of it is there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from edge_sdk.bundle import files, oci
from edge_sdk.bundle.blobs import CHUNK
from edge_sdk.bundle.oci import Descriptor
from edge_sdk.bundle.reader import read_bundle
from edge_sdk.bundle.record import Blob
from edge_sdk.bundle.store import Installed, Store
from edge_sdk.errors import BundleError, DigestError, WorkError
from edge_sdk.fleet.shelf import repository, tag

_UPLOAD = re.compile(r"[0-9a-f]{32}")
MEDIA_TYPES = (oci.INDEX, oci.MANIFEST)


class Intake:
    """Puts things into a store.

    Args:
        root: The store; created by the first blob.
    """

    def __init__(self, root: Path) -> None:
        self._store = Store(root)
        self._blobs = self._store.blobs

    async def append(self, upload: str, pieces: AsyncIterator[bytes]) -> int:
        """Takes a part of an upload; the number of bytes there are now.

        Raises:
            BundleError: It is no name of an upload.
            WorkError: The file system refused.
        """
        path = self._file(upload)
        await run_in_threadpool(self._blobs.prepare)
        with files.writing(path), path.open("ab") as file:
            async for piece in pieces:
                file.write(piece)
            return file.tell()

    async def finish(self, upload: str, digest: str, pieces: AsyncIterator[bytes]) -> None:
        """Takes the last part of an upload, which is a blob from then on.

        Raises:
            DigestError: The bytes are others; nothing is kept.
            BundleError: It is no name of an upload, or no digest.
            WorkError: The file system refused.
        """
        target, path = self._blobs.path(digest), self._file(upload)
        try:
            await self.append(upload, pieces)
            await run_in_threadpool(_place, path, target)
        finally:
            path.unlink(missing_ok=True)

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
        blob = self._blobs.put([data], expect=expected)
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
        try:
            self._store.gc()
        except (BundleError, WorkError):  # others are at it, or something else is damaged:
            return  # the next collection gets it

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


def _place(path: Path, target: Path) -> None:
    """Gives a file the name that its bytes hash to, if that is the target's."""
    found = hashlib.sha256()
    with files.writing(path), path.open("rb") as file:
        while piece := file.read(CHUNK):
            found.update(piece)
        if found.hexdigest() != target.name:
            raise DigestError(f"bytes are sha256:{found.hexdigest()}", where=f"blob {target.name}")
        files.commit(file, target)
