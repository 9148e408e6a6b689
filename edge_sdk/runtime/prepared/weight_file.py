"""A LiteRT file's packed weights as one file that sessions and processes share.

::

    prepared/<manifest>/<key>.<hex digest>.weights
                        <key>.refused                 why there is none

The key is made of the graph's parts, LiteRT's version and the CPU; the name says what the
bytes hash to. LiteRT finds packed weights by their place in the graph and not by what they
are, so that a file of another graph would be wrong without a sign: hence the key, the
digest, and the golden cases before the file gets its name.
"""

from __future__ import annotations

import hashlib
import shutil
from functools import partial
from pathlib import Path

from edge_sdk.bundle import files
from edge_sdk.bundle.blobs import CHUNK, hex_of
from edge_sdk.bundle.reader import Variant
from edge_sdk.bundle.record import Blob, Graph
from edge_sdk.errors import BundleError, EngineError
from edge_sdk.runtime import golden
from edge_sdk.runtime.engine import Engine, Session, SessionOptions
from edge_sdk.runtime.engines.litert import WEIGHT_CACHE
from edge_sdk.runtime.engines.litert_shared import is_available, open_shared
from edge_sdk.runtime.prepared.artefact import verify_file
from edge_sdk.runtime.prepared.joined import parts_key
from edge_sdk.runtime.prepared.stamps import Stamps
from edge_sdk.runtime.prepared.weight_process import pack

# Below this, what a session packs privately is less than what the other interface takes.
WORTHWHILE = 32 * 1024 * 1024
CPU_LINES = ("flags", "Features", "CPU implementer", "CPU part", "model name")


def is_wanted(graph: Graph, options: SessionOptions) -> bool:
    """Whether a graph is to be opened over a file of packed weights, which LiteRT can here."""
    wanted = options.options.get(WEIGHT_CACHE, "auto")
    size = sum(part.size for part in graph.parts)
    return (
        is_available()
        and options.optimize
        and set(options.options) <= {WEIGHT_CACHE}
        and (wanted == "always" or (wanted == "auto" and size >= WORTHWHILE))
    )


def open_graph(
    engine: Engine, graph: Graph, variant: Variant, path: Path, options: SessionOptions
) -> Session:
    """Opens a graph over its packed weights, which are made where absent.

    They are hashed unless they have not been touched since they last were.

    Args:
        engine: LiteRT.
        graph: One of the variant's graphs.
        variant: The variant.
        path: The graph's file.
        options: How to open it.

    Raises:
        BundleError: Nothing could tell whether packed weights are right, or they are damaged.
        EngineError: LiteRT refused, or computes something else over them.
        WorkError: The file system refused.
    """
    folder = variant.blobs.root / "prepared" / hex_of(variant.digest)
    key = _key(engine, graph)
    found = next(folder.glob(f"{key}.*.weights"), None)
    if found is None:
        found = _made(graph, variant, path, options, folder, key)
    else:
        stamps = Stamps(folder / f"{key}.stamps")
        blob = Blob(digest=f"sha256:{found.suffixes[-2][1:]}", size=found.stat().st_size)
        try:
            stamps.verify(found, blob.digest, partial(verify_file, found, blob))
        except BundleError:
            found.unlink(missing_ok=True)  # the next load makes it again
            raise
        stamps.save(folder)
    return open_shared(path, found, graph.inputs, graph.outputs, options)


def _made(
    graph: Graph, variant: Variant, path: Path, options: SessionOptions, folder: Path, key: str
) -> Path:
    """Packs the weights, or waits for the process that is doing it."""
    refusal = folder / f"{key}.refused"
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with files.locked(folder / "lock"):
            for found in folder.glob(f"{key}.*.weights"):
                return found
            if refusal.exists():
                raise EngineError(refusal.read_text(encoding="utf-8"))
            for old in folder.glob(f"{parts_key(graph)[:16]}-*"):
                old.unlink()  # of another version of LiteRT
            try:
                return _packed(graph, variant, path, options, folder / key)
            except EngineError as error:  # said at every load from now on, but not tried again
                files.replace(refusal, str(error).encode(), folder)
                raise


def _packed(
    graph: Graph, variant: Variant, path: Path, options: SessionOptions, name: Path
) -> Path:
    """Packs the weights into a file that computes what it should; its name ends in its digest."""
    cases = [case for case in variant.record.golden if case.graph == graph.name]
    if not cases:
        raise BundleError("the variant has no golden case to check them with")
    work = name.with_name("packing")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        packed = work / "weights"
        pack(path, packed, graph, options)
        session = open_shared(path, packed, graph.inputs, graph.outputs, options)
        for _ in range(2):  # state that stayed from call to call would show
            golden.self_test(cases, {graph.name: session}, variant.blobs)
        target = name.with_name(f"{name.name}.{_digest(packed)}.weights")
        files.sync(packed)
        packed.replace(target)
        files.sync(target.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _key(engine: Engine, graph: Graph) -> str:
    """Names what packed weights depend on: the graph, LiteRT's version, the CPU."""
    cpu = sorted(
        {
            line
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith(CPU_LINES)
        }
    )
    host = hashlib.sha256("\n".join((str(engine.version()), *cpu)).encode()).hexdigest()
    return f"{parts_key(graph)[:16]}-{host[:16]}"


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
