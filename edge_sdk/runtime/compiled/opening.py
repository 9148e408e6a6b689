"""Opening a graph that is compiled here, or is to be."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from edge_sdk.bundle.reader import Variant
from edge_sdk.bundle.record import GoldenCase, Graph
from edge_sdk.errors import EdgeSdkError, WorkError
from edge_sdk.runtime import golden
from edge_sdk.runtime.compiled.place import MOST_ATTEMPTS, History, Place
from edge_sdk.runtime.compiled.request import Request
from edge_sdk.runtime.compiled.session import Open, SwitchingSession
from edge_sdk.runtime.engine import Compilation, CompilingEngine, Session, SessionOptions


def open_graph(
    engine: CompilingEngine,
    compilation: Compilation,
    graph: Graph,
    variant: Variant,
    path: Path,
    options: SessionOptions,
) -> SwitchingSession:
    """A session that serves at once, by the compiled graph as soon as there is one.

    Args:
        engine: The variant's engine.
        compilation: What it has to compile.
        graph: One of the variant's graphs.
        variant: The variant.
        path: The graph's file.
        options: How to open it.

    Raises:
        EngineError: The engine refused the graph.
    """
    session = SwitchingSession(
        partial(engine.open, path, compilation.meanwhile),
        f"the compiled graph {graph.name!r}",
    )
    place = Place.of(variant, graph, options, compilation.identity)
    cases = tuple(case for case in variant.record.golden if case.graph == graph.name)

    def opened() -> Session:
        found = engine.open_compiled(path, options, place.folder)
        golden.self_test(cases, {graph.name: found}, variant.blobs)
        return found

    if not _take_found(session, place, opened):
        session.open_plain()  # first, so that a graph that it refuses is refused at once
        refused = _objection(place, cases)
        if refused:
            session.give_up(refused)
        else:
            request = Request(
                engine=engine.name,
                graph=str(path.absolute()),
                options=options,
                folder=str(place.folder),
                budget_s=compilation.budget_s,
                golden=cases,
                blobs=str(variant.blobs.root.absolute()),
            )
            session.compile_apart(request, place, opened)
    return session


def _objection(place: Place, cases: Sequence[GoldenCase]) -> str:
    """Why nothing is to be compiled, or nothing."""
    history = place.history
    if not cases:
        return "the variant has no golden case to check it with"
    if history.attempts >= MOST_ATTEMPTS:
        return f"{history.attempts} times a process ended while it compiled or opened it"
    return history.refused


def _take_found(session: SwitchingSession, place: Place, opened: Open) -> bool:
    """Serves by what was compiled earlier; what is wrong with it is compiled anew."""
    history = place.history
    if history.attempts >= MOST_ATTEMPTS:
        return False
    try:
        if place.find() is None:
            return False
        with suppress(WorkError):  # where nothing can be written, it can be read all the same
            # Should opening end the process, the next one knows.
            place.note(History(attempts=history.attempts + 1))
        found = opened()
    except EdgeSdkError:
        place.remove()
        return False
    with suppress(WorkError):
        place.note(History())
    session.take(found)
    return True
