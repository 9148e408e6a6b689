"""Files derived on this device: opaque engine files, joined from their blobs.

A file under ``prepared/`` can be rebuilt at any time; it is complete or absent.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from edge_sdk.bundle import files
from edge_sdk.bundle.blobs import CHUNK, BlobStore
from edge_sdk.bundle.record import Blob, Graph
from edge_sdk.errors import BundleError, DigestError, WorkError


@contextmanager
def graph_file(graph: Graph, blobs: BlobStore, folder: Path) -> Iterator[Path]:
    """The file that an engine opens, there for as long as the block lasts.

    One part is opened where it lies, beside the weights it names. Several parts
    are joined once into a file under ``folder``; where nothing may be written there (a
    read-only bundle), into a temporary one, which is as good as gone after the block.

    Args:
        graph: A graph of the variant.
        blobs: Where its parts are.
        folder: Where joined files go; created where absent.

    Raises:
        BundleError: The graph has no parts, or one is missing.
        DigestError: A part does not match its digest.
        WorkError: The file system refused.
    """
    if not graph.parts:
        raise BundleError("has no parts", where=f"graph {graph.name!r}")
    if len(graph.parts) == 1:
        yield blobs.path(graph.parts[0].digest)
        return
    target = folder / f"{parts_key(graph)}.{graph.format}"
    with ExitStack() as stack:
        if not _is_joined(target, graph.parts):
            try:
                _join_alone(graph.parts, blobs, target)
            except WorkError:
                work = stack.enter_context(TemporaryDirectory(prefix="edge-sdk-"))
                target = Path(work) / target.name
                _join(graph.parts, blobs, target, Path(work))
        yield target


def parts_key(graph: Graph) -> str:
    """Names what is derived from a graph's parts; 64 hex digits."""
    return hashlib.sha256("\n".join(part.digest for part in graph.parts).encode()).hexdigest()


def _join_alone(parts: tuple[Blob, ...], blobs: BlobStore, target: Path) -> None:
    """Joins the parts, or waits for the process that is doing it; sweeps what one has left."""
    work = target.parent / "joining"
    with files.writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(target.parent / "lock"):
            if _is_joined(target, parts):
                return
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            try:
                _join(parts, blobs, target, work)
            finally:
                shutil.rmtree(work, ignore_errors=True)


def _join(parts: tuple[Blob, ...], blobs: BlobStore, target: Path, work: Path) -> None:
    with files.writing(target), files.temporary(work) as file:
        for part in parts:
            digest = hashlib.sha256()
            for chunk in blobs.chunks(part):
                digest.update(chunk)
                file.write(chunk)
            if f"sha256:{digest.hexdigest()}" != part.digest:
                raise DigestError("does not match its bytes", where=f"blob {part.digest}")
        files.commit(file, target)
        files.sync(target.parent)


def _is_joined(target: Path, parts: tuple[Blob, ...]) -> bool:
    """Whether the file is there and each part of it still has the part's digest."""
    if not target.is_file() or target.stat().st_size != sum(part.size for part in parts):
        return False
    with target.open("rb") as file:
        return all(_digest_of_next(file, part.size) == part.digest for part in parts)


def _digest_of_next(file: IO[bytes], size: int) -> str:
    digest = hashlib.sha256()
    while size and (chunk := file.read(min(CHUNK, size))):
        digest.update(chunk)
        size -= len(chunk)
    return f"sha256:{digest.hexdigest()}"
