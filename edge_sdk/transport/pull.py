"""Pulling a bundle into a directory of its own.

It is fetched into ``.NAME.pull`` beside its place, which stays after an interruption so that
the next pull goes on from there, and is renamed when it is complete.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edge_sdk.bundle import files, oci
from edge_sdk.bundle.blobs import BlobStore, hex_of
from edge_sdk.bundle.reader import Bundle, open_bundle, read_bundle
from edge_sdk.bundle.writer import check_target, complete
from edge_sdk.errors import WorkError
from edge_sdk.transport.fetch import Fetched, ProfileChoice, fetch
from edge_sdk.transport.source import BlobSource, Reference
from edge_sdk.transport.transfer import Progress


def pull(
    source: BlobSource,
    reference: Reference,
    path: Path,
    *,
    profile: ProfileChoice = None,
    overwrite: bool = False,
    parallel: int = 4,
    rate_limit: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[Bundle, Fetched]:
    """Brings a bundle into a directory; arguments as of :func:`~edge_sdk.transport.fetch.fetch`.

    Args:
        source: Where from.
        reference: Which bundle.
        path: The directory; it is complete afterwards, or as it was.
        profile: Fetch this variant only: its profile, or a function that picks one.
        overwrite: Whether a bundle that is there may be replaced; its blobs are reused.
        parallel: Blobs that travel at a time.
        rate_limit: Bytes per second.
        progress: Told of every piece.

    Raises:
        BundleError: The directory may not be replaced, or what came is no bundle.
        TransferError: The source is not reached, refuses, or broke off too often.
        WorkError: Another pull is at work there, the disk is too small, or the file
            system refused.
    """
    target = path.absolute()
    check_target(target, overwrite)
    with _staging(target) as staging:
        fetched = fetch(
            source,
            reference,
            staging,
            profile=profile,
            parallel=parallel,
            rate_limit=rate_limit,
            reuse=[BlobStore(target)] if target.exists() else (),
            progress=progress,
        )
        bundle = read_bundle(staging, fetched.descriptor)
        entry = oci.of_bundle(fetched.descriptor, fetched.bundle.digest)
        named = entry.annotations | {oci.REF_NAME: bundle.version}
        _sweep(staging, bundle)
        complete(
            staging,
            target,
            msgspec.structs.replace(entry, annotations=named),
            overwrite=overwrite,
        )
    return open_bundle(target), fetched


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """The directory that becomes the target; kept for the next pull unless it did."""
    staging = target.with_name(f".{target.name}.pull")
    with files.writing(staging):
        staging.mkdir(parents=True, exist_ok=True)
        lock = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkError("another pull is at work here", where=str(target)) from None
        try:
            yield staging
        finally:
            if not _has_bytes(staging):
                shutil.rmtree(staging, ignore_errors=True)
    finally:
        os.close(lock)


def _has_bytes(folder: Path) -> bool:
    """Whether there is something to go on with."""
    return any(path.is_file() and path.stat().st_size for path in folder.rglob("*"))


def _sweep(staging: Path, bundle: Bundle) -> None:
    """Leaves nothing but the bundle's blobs: earlier pulls may have been for another."""
    needed = {hex_of(bundle.descriptor.digest)}
    needed |= {hex_of(blob.digest) for variant in bundle.variants for blob in variant.all_blobs}
    with files.writing(staging):
        for entry in staging.iterdir():
            if entry.name != "blobs":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for file in BlobStore(staging).folder.iterdir():
            if file.name not in needed:
                file.unlink()
