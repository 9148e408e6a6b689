"""The process that compiles one graph; see :func:`edge_sdk.runtime.compiled.session.compile_apart`.

It ends itself when its time is over, by an alarm that needs no interpreter; where memory
is short, the kernel is asked to take it first. It outlives a parent that is killed, and
what it completes then is found at the next start.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from edge_sdk.bundle import files
from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.errors import EdgeSdkError, EngineError
from edge_sdk.runtime import golden
from edge_sdk.runtime.arrays import read_arrays
from edge_sdk.runtime.compiled.place import History, Place
from edge_sdk.runtime.compiled.request import REFUSED, Request
from edge_sdk.runtime.engine import CompilingEngine, find_engine


def main(work: Request) -> None:
    """Compiles, unless another process has done so in the meantime.

    Raises:
        SystemExit: The engine refused; why is noted in the place's history.
    """
    place = Place(Path(work.folder))
    place.folder.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(place.lock):
        signal.setitimer(signal.ITIMER_REAL, work.budget_s)
        os.nice(10)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        if _is_there(place):
            place.note(History())
            return
        try:
            _compile(work, place)
        except EdgeSdkError as error:
            place.note(History(refused=str(error).partition("\n")[0]))
            place.remove()
            sys.exit(REFUSED)


def _is_there(place: Place) -> bool:
    try:
        return place.find() is not None
    except EngineError:
        return False


def _compile(work: Request, place: Place) -> None:
    engine = find_engine(work.engine)
    if not isinstance(engine, CompilingEngine):
        raise EngineError(f"the engine {engine.name!r} compiles nothing")
    blobs, graph = BlobStore(Path(work.blobs)), Path(work.graph)
    started = time.monotonic()
    place.clear()
    calls = [read_arrays(case.inputs, blobs) for case in work.golden]
    engine.compile(graph, work.options, place.folder, calls)
    seconds = time.monotonic() - started
    session = engine.open_compiled(graph, work.options, place.folder)
    golden.self_test(work.golden, {case.graph: session for case in work.golden}, blobs)
    place.complete(seconds)


if __name__ == "__main__":
    main(msgspec.json.decode(sys.stdin.buffer.read(), type=Request))
