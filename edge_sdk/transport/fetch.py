"""Fetching a bundle: only what is missing, resumed, verified while it streams.

A blob grows in ``partial/<hex digest>`` of the layout it is fetched into. After any
interruption, SIGKILL included, the next fetch hashes what is there and asks for the rest; a
file is renamed to its place among the blobs when its digest is right and its bytes are
durable, so no wrong byte is ever found there.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Set
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from edge_sdk.bundle import files, oci
from edge_sdk.bundle.blobs import CHUNK, BlobStore, hex_of
from edge_sdk.bundle.oci import Descriptor, Platform
from edge_sdk.bundle.reader import read_manifest, read_manifests
from edge_sdk.bundle.record import Blob
from edge_sdk.errors import BundleError, DigestError, TransferError, WorkError
from edge_sdk.transport.source import BlobSource, Reference
from edge_sdk.transport.transfer import ATTENTION, Progress, Retry, Transfer

ProfileChoice = str | Callable[[Mapping[str, Platform]], str] | None
"""A device profile, or what picks one of those there are, such as
:func:`device_profiles.select.select_here`; ``None`` for all of them."""
T = TypeVar("T")
RESERVE = 4 * 1024 * 1024
"""Bytes of the disk that a fetch leaves free: the store's index and the journal need some."""


@dataclass(frozen=True)
class Fetched:
    """What a fetch brought.

    Attributes:
        bundle: The image index, or the only manifest, that the reference stands for.
        descriptor: What to enter into a store: the image index, or one profile's manifest.
        manifests: The variants that are here now.
        fetched_bytes: Bytes that travelled, documents included.
        reused_bytes: Bytes of the variants that did not have to.
    """

    bundle: Descriptor
    descriptor: Descriptor
    manifests: tuple[Descriptor, ...]
    fetched_bytes: int
    reused_bytes: int


def fetch(
    source: BlobSource,
    reference: Reference,
    root: Path,
    *,
    profile: ProfileChoice = None,
    parallel: int = 4,
    rate_limit: float | None = None,
    reuse: Iterable[BlobStore] = (),
    retry: Retry | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Fetched:
    """Brings all blobs of a bundle into a layout; nothing is listed there yet.

    Blobs that are there already are hashed, and replaced where they are damaged. Fetches
    into one layout take turns.

    Args:
        source: Where from.
        reference: Which bundle.
        root: A store, or the directory of a bundle in the making.
        profile: Fetch this variant only: its profile, or a function that picks one.
        parallel: Blobs that travel at a time.
        rate_limit: Bytes per second.
        reuse: Other layouts whose blobs are linked or copied rather than fetched.
        retry: When to try again what broke off.
        progress: Told of every piece, by several threads but one at a time.
        cancelled: Asked all the time; then the fetch ends with a passing
            :class:`TransferError`, and can be resumed. The source is closed.

    Raises:
        TransferError: The source is not reached, refuses, or broke off too often.
        BundleError: What came is not a bundle, or has no such variant.
        DigestError: The source gives other bytes than it promised.
        WorkError: The disk is too small, or the file system refused.
    """
    blobs = BlobStore(root)
    blobs.prepare()
    with files.writing(root):
        blobs.partial.mkdir(exist_ok=True)
    transfer = Transfer(
        str(reference), rate_limit=rate_limit, retry=retry, progress=progress, cancelled=cancelled
    )
    work = _Fetch(source, reference, blobs, transfer)
    with files.writing(root), files.locked(blobs.fetching):
        bundle = work.wait_for(work.resolve)
        chosen = choose(read_manifests(blobs, bundle), profile)
        needed = work.wait_for(lambda: work.manifests(chosen))
        with ThreadPoolExecutor(max(1, parallel), thread_name_prefix="fetch") as pool, transfer:
            missing = work.missing(pool, needed, tuple(reuse))
            work.bring(pool, missing)
        blobs.sync()
    return Fetched(
        bundle=bundle,
        descriptor=bundle if profile is None else chosen[0],
        manifests=chosen,
        fetched_bytes=transfer.travelled,
        reused_bytes=sum(blob.size for blob in needed) - sum(blob.size for blob in missing),
    )


def choose(manifests: tuple[Descriptor, ...], profile: ProfileChoice) -> tuple[Descriptor, ...]:
    """The variants of a bundle to fetch: all, one profile's, or the one that a function picks.

    A single variant outside an image index is taken as it is: nothing says what it is for.

    Raises:
        BundleError: There is no variant for that profile.
    """
    by_profile = {d.annotations[oci.PROFILE]: d for d in manifests if oci.PROFILE in d.annotations}
    if profile is None or (len(manifests) == 1 and not by_profile):
        return manifests
    if not isinstance(profile, str):
        platforms = {name: d.platform for name, d in by_profile.items() if d.platform is not None}
        profile = profile(platforms)
    if profile not in by_profile:
        raise BundleError(
            f"the bundle has no variant for profile {profile!r}",
            remedy=f"choose one of: {', '.join(by_profile)}",
        )
    return (by_profile[profile],)


class _Fetch:
    """One fetch at work."""

    def __init__(
        self, source: BlobSource, reference: Reference, blobs: BlobStore, transfer: Transfer
    ) -> None:
        self._source = source
        self._reference = reference
        self._blobs = blobs
        self._transfer = transfer

    def resolve(self) -> Descriptor:
        """What the reference stands for; the document is among the blobs afterwards."""
        found = self._transfer.persist(lambda: self._source.resolve(self._reference))
        wanted = self._reference.digest
        if wanted not in (None, found.digest):
            raise DigestError(f"stands for {found.digest}", where=str(self._reference))
        self._document(found)
        return found

    def manifests(self, chosen: tuple[Descriptor, ...]) -> tuple[Blob, ...]:
        """Brings manifests; the blobs they name, each once."""
        for descriptor in chosen:
            self._document(descriptor)
        documents = [read_manifest(self._blobs, descriptor) for descriptor in chosen]
        parts = [part.blob for m in documents for part in (m.config, *m.layers)]
        needed = {hex_of(blob.digest): blob for blob in parts}
        for blob in parts:
            if needed[hex_of(blob.digest)] != blob:
                raise BundleError("is said to have several sizes", where=f"blob {blob.digest}")
        return tuple(needed.values())

    def missing(
        self, pool: Executor, needed: tuple[Blob, ...], reuse: tuple[BlobStore, ...]
    ) -> tuple[Blob, ...]:
        """Those of the blobs that are not here intact, after a look into other layouts.

        Raises:
            WorkError: There is no room for them.
        """

        def here(blob: Blob) -> bool:
            self._transfer.check()
            for store in (self._blobs, *reuse):
                with suppress(BundleError):
                    if store is self._blobs:
                        store.verify(blob)
                    else:
                        self._blobs.adopt(store, blob)
                    return True
            return False

        found = pool.map(here, needed)
        missing = tuple(blob for blob, is_here in zip(needed, found, strict=True) if not is_here)
        room = shutil.disk_usage(self._blobs.root).free
        wanted = sum(
            blob.size - min(blob.size, _size(self._blobs.partial / hex_of(blob.digest)))
            for blob in missing
        )
        if wanted and wanted + RESERVE > room:
            raise WorkError(
                f"{wanted} bytes are missing and the disk has {room} free, "
                f"of which {RESERVE} stay so; nothing was fetched",
                where=str(self._blobs.root),
                remedy="free space, or remove bundles and run `edge-sdk store gc`",
            )
        return missing

    def bring(self, pool: Executor, missing: tuple[Blob, ...]) -> None:
        """Brings blobs, as many at a time as the pool has threads; the first failure ends it."""
        self._transfer.expect(missing)
        self._end({pool.submit(self._blob, blob) for blob in missing})

    def wait_for(self, work: Callable[[], T]) -> T:
        """Does something in a thread, which is left behind where it is not wanted any more.

        It may be at what nothing wakes it from, such as connecting.
        """
        result: Future[T] = Future()

        def run() -> None:
            try:
                result.set_result(work())
            except Exception as error:  # noqa: BLE001  raised again where it is waited for
                result.set_exception(error)

        threading.Thread(target=run, name="fetch", daemon=True).start()
        self._end({result})
        return result.result()

    def _end(self, pending: Set[Future[Any]]) -> None:
        try:
            while pending:
                self._transfer.check()
                done, pending = wait(pending, ATTENTION, FIRST_EXCEPTION)
                for future in done:
                    future.result()
        except BaseException:
            self._transfer.stop()
            self._source.close()  # no thread shall wait for a byte that is not wanted any more
            raise

    def _document(self, descriptor: Descriptor) -> None:
        hex_of(descriptor.digest)
        if descriptor.size > oci.MANIFEST_LIMIT:
            raise BundleError(
                f"{descriptor.size} bytes are more than a manifest may have",
                where=f"blob {descriptor.digest}",
            )
        with suppress(BundleError):
            self._blobs.verify(descriptor.blob)
            return
        data, travelled = self._transfer.persist(
            lambda: self._source.document(self._reference, descriptor)
        )
        self._transfer.moved(travelled)
        self._blobs.put([data], expect=descriptor.blob)

    def _blob(self, blob: Blob) -> None:
        """Brings one blob, however often it breaks off; a damaged partial file is begun anew."""
        path = self._blobs.partial / hex_of(blob.digest)
        with files.writing(path), path.open("ab+") as file:
            part = _Part(file)
            kept = part.size
            self._transfer.done(min(kept, blob.size))
            if not self._fill(part, blob) and not (kept and self._fill(part, blob)):
                path.unlink()
                raise DigestError(
                    "the bytes that came are others",
                    where=f"blob {blob.digest}",
                    remedy="the other side's copy is damaged: push the bundle again",
                )
            files.commit(file, self._blobs.path(blob.digest))
        self._transfer.done(0, blobs=1)

    def _fill(self, part: _Part, blob: Blob) -> bool:
        """Brings what is missing; what turns out not to be the blob is emptied."""
        self._transfer.persist(lambda: self._receive(part, blob), lambda: part.size)
        if part.blob == blob:
            return True
        self._transfer.done(-min(part.size, blob.size))
        part.clear()
        return False

    def _receive(self, part: _Part, blob: Blob) -> None:
        """Appends pieces as they come; one byte too many is enough to know."""
        if part.size >= blob.size:
            return
        for piece, travelled in self._source.read(self._reference, blob, part.size):
            self._transfer.done(min(len(piece), blob.size - part.size))
            part.append(piece)
            self._transfer.moved(travelled)
            if part.size > blob.size:
                return
        if part.size < blob.size:
            raise TransferError(
                f"broke off after {part.size} of {blob.size} bytes", where=f"blob {blob.digest}"
            )


class _Part:
    """A partial file and the hash of what is in it.

    Attributes:
        size: Bytes in it.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        file.seek(0)
        while piece := file.read(CHUNK):
            self._digest.update(piece)
        self.size = file.tell()

    @property
    def blob(self) -> Blob:
        """What it is so far."""
        return Blob(digest=f"sha256:{self._digest.hexdigest()}", size=self.size)

    def append(self, piece: bytes) -> None:
        """Writes and hashes a piece."""
        self._file.write(piece)
        self._digest.update(piece)
        self.size += len(piece)

    def clear(self) -> None:
        """Begins anew."""
        self._file.truncate(0)
        self._digest = hashlib.sha256()
        self.size = 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
