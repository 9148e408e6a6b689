"""Preparing a graph: weight by weight, so that it needs the memory of one weight.

For each node: pack its raw weight, write the packed bytes with scales and zero points
into a file, ask for the key under which they stand in for the raw weight, and check
that the node computes the very same bits from that file. The index comes last; a
process that is killed before leaves files that the next one replaces or sweeps.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from edge_sdk.bundle import files
from edge_sdk.bundle.blobs import CHUNK, hex_of
from edge_sdk.bundle.record import Blob
from edge_sdk.errors import BundleError, EngineError, WorkError
from edge_sdk.runtime import process
from edge_sdk.runtime.engine import SessionOptions
from edge_sdk.runtime.prepared import packing
from edge_sdk.runtime.prepared.artefact import (
    Index,
    Place,
    Preparation,
    Weight,
    page_end,
    read_index,
    verify_file,
)
from edge_sdk.runtime.prepared.graph import Model, Packable, Tensor, read_model
from edge_sdk.runtime.prepared.packing import Packed

Progress = Callable[[int, int], None]
"""Called with the number of weights done and of all weights."""


def prepare(place: Place, options: SessionOptions, progress: Progress | None = None) -> Index:
    """Prepares a graph, or waits for the process that is doing it.

    Args:
        place: The graph, and where its files go.
        options: Those of the sessions that will use them.
        progress: Called after each weight.

    Raises:
        EngineError: The engine refused, or does not compute the same from what it packed.
        BundleError: The graph is damaged.
        WorkError: The file system refused.
    """
    with _locked(place):
        found = place.find()
        if found is not None:
            return found
        with _working(place.folder) as work:
            index = _Preparing(place, options, work).run(progress)
        place.write(index)
        _drop_other_layouts(place)
        return index


def record(place: Place, index: Index) -> None:
    """Replaces an index; what no index lists is deleted.

    Raises:
        WorkError: The file system refused.
    """
    with _locked(place):
        place.write(index)
        _sweep(place.folder)


@contextmanager
def _locked(place: Place) -> Iterator[None]:
    with files.writing(place.folder):
        place.folder.mkdir(parents=True, exist_ok=True)
        with files.locked(place.folder / "lock"):
            yield


class _Preparing:
    """One preparation, under the lock of its folder."""

    def __init__(self, place: Place, options: SessionOptions, work: Path) -> None:
        self._place = place
        self._options = options
        self._work = work
        self._root = place.blobs.root.resolve()
        self._model = _read_graph(place)
        self._known = {weight.source: (path, weight) for path, weight in _others(place)}
        self._new = self._packed = self._memory = 0
        self._before = process.anonymous()

    def run(self, progress: Progress | None) -> Index:
        start = time.monotonic()
        self._check_space()
        done: dict[str, Weight] = {}
        for count, node in enumerate(self._model.packable, 1):
            weight = self._shared(node) or self._pack(node)
            if weight is not None:
                done[node.output] = weight
                self._known[node.source] = (self._place.path(weight.blob), weight)
            if progress is not None:
                progress(count, len(self._model.packable))
        refused = "" if done else "the engine packs none of its weights on this CPU"
        model = self._store([self._rewritten(done)])
        sizes = {blob.digest: blob.size for blob in (model, *(w.blob for w in done.values()))}
        return Index(
            layout=self._place.layout,
            graph=self._place.graph.parts[0].digest,
            model=model,
            weights=tuple(done.values()),
            unread=tuple(f"sha256:{Path(at).name}" for at in sorted(self._model.unread(done))),
            preparation=Preparation(
                seconds=time.monotonic() - start,
                memory=self._memory,
                disk=sum(sizes.values()),
                new=self._new,
                weights=len(done),
                packed=self._packed,
            ),
            refused=refused if self._model.packable else "",
        )

    def _shared(self, node: Packable) -> Weight | None:
        """The weight where any variant here has prepared it for this layout already."""
        path, weight = self._known.get(node.source, (None, None))
        if path is None or weight is None:
            return None
        target = self._place.path(weight.blob)
        try:
            verify_file(path, weight.blob)
        except (OSError, BundleError):
            return None
        if path == target or files.link(path, target, self._work):
            return weight
        return None

    def _pack(self, node: Packable) -> Weight | None:
        """Packs one weight; ``None`` where the engine uses it as it is on this CPU."""
        place, header = self._place, self._model.header
        packed, expected = self._saved(node, node.tensors)
        if packed is None or packed.length < node.weight.length:
            return None
        blob = self._store(_content(node, packed, place))
        weight = Weight(source=node.source, blob=blob, key="", packed=packed.length)
        stand_in, _ = self._saved(node, weight.tensors(node, place.relative))
        if stand_in is None:
            return None
        weight = msgspec.structs.replace(weight, key=stand_in.key)
        alone = node.alone(header, weight.tensors(node, place.relative))
        session = packing.open_model(alone, self._root, self._options)
        if packing.product(session, node.width) != expected:
            raise EngineError(
                "computes something else from the bytes it packed", where=f"node {node.name!r}"
            )
        self._packed += 1
        return weight

    def _saved(self, node: Packable, tensors: Mapping[int, Tensor]) -> tuple[Packed | None, bytes]:
        """What the engine packs of a node's weight, and what the node computes with it.

        The engine's own copy lives no longer than this call.
        """
        process.trim()  # the C library would keep the last one's memory
        alone = node.alone(self._model.header, tensors)
        session, packed = packing.save(alone, self._root, self._options, self._work)
        self._memory = max(self._memory, process.anonymous() - self._before)
        return packed.get(node.weight.name), packing.product(session, node.width)

    def _rewritten(self, done: Mapping[str, Weight]) -> bytes:
        tensors = {
            node.output: done[node.output].tensors(node, self._place.relative)
            for node in self._model.packable
            if node.output in done
        }
        return self._model.rewritten(tensors)

    def _store(self, chunks: Iterable[bytes]) -> Blob:
        """Writes a file named by its digest, in place of one that a killed process left."""
        digest, size = hashlib.sha256(), 0
        with files.temporary(self._work) as file:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
            blob = Blob(digest=f"sha256:{digest.hexdigest()}", size=size)
            files.commit(file, self._place.path(blob))
        self._new += size
        return blob

    def _check_space(self) -> None:
        """Ends before the disk is full of what then has to be deleted again."""
        missing = [node for node in self._model.packable if node.source not in self._known]
        sizes = [tensor.length for node in missing for tensor in node.tensors.values()]
        # Each block's sum joins its scale, and scales are there twice; the engine saves raw
        # and packed bytes of one weight at a time.
        needed = sum(sizes) * 3 // 2 + max(sizes, default=0) * 5 // 2
        free = shutil.disk_usage(self._work).free
        if free < needed:
            raise WorkError(
                f"preparing needs {needed / 1e6:.0f} MB of disk, {free / 1e6:.0f} MB are free",
                where=str(self._place.folder),
            )


def _content(node: Packable, packed: Packed, place: Place) -> Iterator[bytes]:
    """Packed bytes, scales, zero points; each begins on a page of its own."""
    at = packed.length
    yield from _part(packed.file, packed.offset, packed.length)
    for position, tensor in sorted(node.tensors.items()):
        if position > 1:
            yield bytes(page_end(at) - at)
            yield from _part(place.blobs.root / tensor.location, tensor.offset, tensor.length)
            at = page_end(at) + tensor.length


def _part(path: Path, offset: int, length: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while length:
            chunk = file.read(min(CHUNK, length))
            if not chunk:
                raise BundleError("ends early", where=str(path))
            length -= len(chunk)
            yield chunk


def _read_graph(place: Place) -> Model:
    [part] = place.graph.parts
    folder = place.blobs.folder.relative_to(place.blobs.root).as_posix()
    return read_model(place.blobs.read(part, part.size), folder)


def _others(place: Place) -> Iterator[tuple[Path, Weight]]:
    """Weights that any variant here has prepared for the same layout, with their files."""
    for path in place.folder.parent.parent.glob(f"*/{place.layout}/*.json"):
        with suppress(BundleError, OSError):
            index = read_index(path)
            for weight in index.weights if index and index.layout == place.layout else ():
                yield path.parent / hex_of(weight.blob.digest), weight


@contextmanager
def _working(folder: Path) -> Iterator[Path]:
    """A folder for temporary files; what is unfinished is gone before, and after a failure."""
    _sweep(folder)
    try:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            yield Path(work)
    except BaseException:
        _sweep(folder)
        raise


def _sweep(folder: Path) -> None:
    """Deletes what no index lists."""
    needed = {"lock"}
    for path in folder.glob("*.json"):
        with suppress(BundleError):
            index = read_index(path)
            if index:
                needed |= {path.name, *(hex_of(blob.digest) for blob in index.blobs)}
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in needed:
            path.unlink()


def _drop_other_layouts(place: Place) -> None:
    """What an engine of another version has packed is of no use any more."""
    for path in place.folder.parent.iterdir():
        if path.is_dir() and path != place.folder:
            shutil.rmtree(path, ignore_errors=True)
