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
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Executor, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from edge_sdk.bundle import files, oci
from edge_sdk.bundle.blobs import CHUNK, BlobStore, hex_of
from edge_sdk.bundle.oci import Descriptor
from edge_sdk.bundle.reader import read_manifest, read_manifests
from edge_sdk.bundle.record import Blob
from edge_sdk.errors import BundleError, DigestError, TransferError, WorkError
from edge_sdk.transport.backoff import Backoff
from edge_sdk.transport.limits import RateLimit, Retry
from edge_sdk.transport.source import BlobSource, Reference

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

PARTIAL = "partial"
"""Folder of a layout for blobs that are on their way."""
LOCK = "lock"
"""File in that folder; whoever fetches into the layout holds it."""
ATTENTION = 0.2
"""Seconds within which a waiting fetch notices that it is not wanted any more."""
RESERVE = 4 * 1024 * 1024
"""Bytes of the disk that a fetch leaves free: the store's index and the journal need some."""
T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """How far a fetch is; both counts are of what was missing when it began.

    Attributes:
        bytes_done: Bytes here and verified, or in partial files.
        bytes_total: Bytes that were missing.
        blobs_done: Blobs that are in their place.
        blobs_total: Blobs that were missing.
    """

    bytes_done: int
    bytes_total: int
    blobs_done: int
    blobs_total: int


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
    profile: str | None = None,
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
        profile: Fetch this variant only; ``auto`` picks the best one for this machine.
        parallel: Blobs that travel at a time.
        rate_limit: Bytes per second.
        reuse: Other layouts whose blobs are linked or copied rather than fetched.
        retry: When to try again what broke off.
        progress: Told of every piece, by several threads but one at a time.
        cancelled: Asked at every piece; then the fetch ends with a passing
            :class:`TransferError`, and can be resumed.

    Raises:
        TransferError: The source is not reached, refuses, or broke off too often.
        BundleError: What came is not a bundle, or has no such variant.
        DigestError: The source gives other bytes than it promised.
        ProfileError: ``auto``, and no variant suits this machine.
        WorkError: The disk is too small, or the file system refused.
    """
    blobs = BlobStore(root)
    blobs.prepare()
    partial = root / PARTIAL
    with files.writing(root):
        partial.mkdir(exist_ok=True)
    work = _Fetch(source, reference, blobs, RateLimit(rate_limit), retry or Retry(), cancelled)
    with files.locked(partial / LOCK):
        bundle = work.resolve()
        chosen = choose(read_manifests(blobs, bundle), profile)
        needed = work.manifests(chosen)
        with ThreadPoolExecutor(max(1, parallel), thread_name_prefix="fetch") as pool, work:
            missing = work.missing(pool, needed, tuple(reuse))
            work.blobs_of(pool, missing, progress)
        blobs.sync()
    return Fetched(
        bundle=bundle,
        descriptor=bundle if profile is None else chosen[0],
        manifests=chosen,
        fetched_bytes=work.travelled,
        reused_bytes=sum(blob.size for blob in needed) - sum(blob.size for blob in missing),
    )


def choose(manifests: tuple[Descriptor, ...], profile: str | None) -> tuple[Descriptor, ...]:
    """The variants of a bundle to fetch: all, one profile's, or with ``auto`` the best here.

    A single variant outside an image index is taken as it is: nothing says what it is for.

    Raises:
        BundleError: There is no variant for that profile.
        ProfileError: ``auto``, and no variant suits this machine.
    """
    by_profile = {d.annotations[oci.PROFILE]: d for d in manifests if oci.PROFILE in d.annotations}
    if profile is None or (len(manifests) == 1 and not by_profile):
        return manifests
    if profile == "auto":
        from device_profiles.machine import detect_machine
        from device_profiles.select import select

        platforms = {name: d.platform for name, d in by_profile.items() if d.platform is not None}
        profile = select(platforms, detect_machine())
    if profile not in by_profile:
        raise BundleError(
            f"the bundle has no variant for profile {profile!r}",
            remedy=f"choose one of: {', '.join(by_profile)}",
        )
    return (by_profile[profile],)


class _Meter:
    """Counts bytes of several threads and tells of them."""

    def __init__(self, tell: Callable[[Progress], None] | None, missing: tuple[Blob, ...]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._now = Progress(0, sum(blob.size for blob in missing), 0, len(missing))

    def add(self, count: int, blobs: int = 0) -> None:
        """Counts bytes (back again where negative) and whole blobs."""
        with self._lock:
            now = self._now
            self._now = replace(
                now, bytes_done=now.bytes_done + count, blobs_done=now.blobs_done + blobs
            )
            if self._tell:
                self._tell(self._now)


class _Fetch:
    """One fetch at work."""

    def __init__(
        self,
        source: BlobSource,
        reference: Reference,
        blobs: BlobStore,
        limit: RateLimit,
        retry: Retry,
        cancelled: Callable[[], bool],
    ) -> None:
        self._source = source
        self._reference = reference
        self._blobs = blobs
        self._limit = limit
        self._retry = retry
        self._cancelled = cancelled
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.travelled = 0

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._stop.set()  # threads that are still at work end at their next piece

    def resolve(self) -> Descriptor:
        """What the reference stands for; the document is among the blobs afterwards."""
        found = self._persist(lambda: self._source.resolve(self._reference))
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
        return tuple(dict.fromkeys(parts))

    def missing(
        self, pool: Executor, needed: tuple[Blob, ...], reuse: tuple[BlobStore, ...]
    ) -> tuple[Blob, ...]:
        """Those of the blobs that are not here intact, after a look into other layouts.

        Raises:
            WorkError: There is no room for them.
        """

        def here(blob: Blob) -> bool:
            self._check()
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
        wanted = sum(blob.size - min(blob.size, _size(self._partial(blob))) for blob in missing)
        if wanted and wanted + RESERVE > room:
            raise WorkError(
                f"{wanted} bytes are missing and the disk has {room} free, "
                f"of which {RESERVE} stay so; nothing was fetched",
                where=str(self._blobs.root),
                remedy="free space, or remove bundles and run `edge-sdk store gc`",
            )
        return missing

    def blobs_of(
        self, pool: Executor, missing: tuple[Blob, ...], tell: Callable[[Progress], None] | None
    ) -> None:
        """Brings blobs, as many at a time as the pool has threads; the first failure ends it."""
        meter = _Meter(tell, missing)
        meter.add(0)
        futures = [pool.submit(self._blob, blob, meter) for blob in missing]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()

    def _document(self, descriptor: Descriptor) -> None:
        if descriptor.size > oci.MANIFEST_LIMIT:
            raise BundleError(
                f"{descriptor.size} bytes are more than a manifest may have",
                where=f"blob {descriptor.digest}",
            )
        with suppress(BundleError):
            self._blobs.verify(descriptor.blob)
            return
        data = self._persist(lambda: self._source.document(self._reference, descriptor))
        self.travelled += len(data)
        self._blobs.put([data], expect=descriptor.blob)

    def _blob(self, blob: Blob, meter: _Meter) -> None:
        """Brings one blob, however often it breaks off; a damaged partial file is begun anew."""
        partial = self._partial(blob)
        kept = min(_size(partial), blob.size)
        meter.add(kept)
        try:
            self._persist(lambda: self._receive(blob, partial, meter), lambda: _size(partial))
        except DigestError:
            if not kept:
                raise
            # What an earlier fetch left was damaged, by a power cut for one.
            self._persist(lambda: self._receive(blob, partial, meter), lambda: _size(partial))
        meter.add(0, blobs=1)

    def _receive(self, blob: Blob, partial: Path, meter: _Meter) -> None:
        """Appends to a partial file what it lacks, and puts it in its place."""
        self._check()
        with files.writing(partial), partial.open("ab+") as file:
            digest, offset = _hash_of(file)
            if offset < blob.size:
                pieces = self._source.read(self._reference, blob, offset)
                offset += self._append(file, pieces, digest, blob.size - offset, meter)
            if offset < blob.size:
                raise TransferError(
                    f"broke off after {offset} of {blob.size} bytes", where=f"blob {blob.digest}"
                )
            if offset > blob.size or digest.hexdigest() != hex_of(blob.digest):
                partial.unlink()
                meter.add(-min(offset, blob.size))
                raise DigestError(
                    f"the {offset} bytes that came hash to sha256:{digest.hexdigest()}",
                    where=f"blob {blob.digest}",
                    remedy="the other side's copy is damaged: push the bundle again",
                )
            files.commit(file, self._blobs.path(blob.digest))

    def _append(
        self, file: IO[bytes], pieces: Iterator[bytes], digest: Hash, wanted: int, meter: _Meter
    ) -> int:
        """Writes and hashes pieces as they come; one byte too many is enough to know."""
        count = 0
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            count += len(piece)
            meter.add(len(piece) - max(0, count - wanted))
            with self._lock:
                self.travelled += len(piece)
            if count > wanted:
                break
            self._pause(self._limit.debt(len(piece)))
        return count

    def _persist(self, work: Callable[[], T], measure: Callable[[], int] = lambda: 0) -> T:
        """Does what may break off again and again, as long as there is progress."""
        failures = 0
        backoff = Backoff(self._retry.shortest, self._retry.longest)
        while True:
            before = measure()
            try:
                return work()
            except TransferError as error:
                self._check()
                failures += 1
                if measure() > before:
                    failures = 1
                    backoff = Backoff(self._retry.shortest, self._retry.longest)
                if not error.passing or failures >= self._retry.attempts:
                    raise
                self._pause(backoff.delay())

    def _pause(self, seconds: float) -> None:
        """Waits, as long as the fetch is wanted."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._check()
            self._stop.wait(min(left, ATTENTION))
        self._check()

    def _check(self) -> None:
        if self._stop.is_set() or self._cancelled():
            raise TransferError("stopped before all of it was here", where=str(self._reference))

    def _partial(self, blob: Blob) -> Path:
        return self._blobs.root / PARTIAL / hex_of(blob.digest)


def _hash_of(file: IO[bytes]) -> tuple[Hash, int]:
    """The hash of all that a file holds, and how much that is; it is then at its end."""
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(CHUNK):
        digest.update(piece)
    return digest, file.tell()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
