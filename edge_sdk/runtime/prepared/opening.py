"""Opening a graph over its prepared weights, or plainly and saying why."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container
from functools import partial
from pathlib import Path
from threading import Lock

import msgspec

from edge_sdk.bundle.blobs import hex_of
from edge_sdk.bundle.reader import Variant
from edge_sdk.bundle.record import Graph, VariantRecord
from edge_sdk.errors import BundleError, EdgeSdkError, EngineError
from edge_sdk.runtime import golden, process
from edge_sdk.runtime.engine import CompilingEngine, Engine, Session, SessionOptions
from edge_sdk.runtime.engines.onnx import CPU, OnnxEngine, OnnxSession
from edge_sdk.runtime.prepared import witness
from edge_sdk.runtime.prepared.artefact import Index, Place, Preparation
from edge_sdk.runtime.prepared.joined import graph_file
from edge_sdk.runtime.prepared.packing import TESTED, layout_id
from edge_sdk.runtime.prepared.prepare import Progress, record
from edge_sdk.runtime.prepared.prepare import prepare as make
from edge_sdk.runtime.prepared.stamps import Stamps, Verify

_opening = Lock()  # so that what is mapped meanwhile is the session's own


def open_graph(
    engine: Engine,
    graph: Graph,
    variant: Variant,
    options: SessionOptions,
    *,
    prepare: bool = True,
    verify: Verify = False,
    progress: Progress | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Session:
    """Opens a graph: a decoder's over prepared weights, which are made where absent.

    What stands against that is a note of the session, which is then a plain one.

    Args:
        engine: The variant's engine.
        graph: One of the variant's graphs.
        variant: The variant.
        options: How to open it.
        prepare: Whether prepared weights may be used and made.
        verify: Whether to hash everything that is about to be read and whose stamp is unknown.
        progress: Called while weights are being prepared.
        meanwhile: Called when the engine is about to read the graph, which takes a while.

    Raises:
        BundleError: The engine does not read the graph's format, or a file is damaged.
        EngineError: The engine refused the graph.
    """
    if graph.format not in engine.formats:
        raise BundleError(
            f"is {graph.format!r}, which the engine {engine.name!r} does not read",
            where=f"graph {graph.name!r}",
        )
    note = None
    if prepare and isinstance(engine, OnnxEngine) and _runs_on_cpu(variant.record, options):
        try:
            session = _open_prepared(engine, graph, variant, options, verify, progress, meanwhile)
            if session is not None:
                return session
        except (OSError, EdgeSdkError) as error:
            why = str(error).partition("\n")[0]
            note = f"graph {graph.name!r} is loaded plainly, not over prepared weights: {why}"
    if verify:  # in full, because what is known of stamps may be what has failed
        for blob in (*graph.parts, *graph.weights):
            variant.verify_blob(blob)
    folder = variant.blobs.root / "prepared" / hex_of(variant.digest)
    with graph_file(graph, variant.blobs, folder) as path:
        if meanwhile:
            meanwhile()
        grows = variant.record.generation or variant.record.decoding  # with every token
        if isinstance(engine, CompilingEngine) and not grows:
            compilation = engine.compilation(options)
            if compilation is not None and len(graph.parts) == 1:
                from edge_sdk.runtime import compiled

                return compiled.open_graph(engine, compilation, graph, variant, path, options)
        if prepare and engine.name == "litert":
            return _open_litert(engine, graph, variant, path, options)
        plain = engine.open(path, options)
    return plain if note is None else _noted(plain, note)


def _open_litert(
    engine: Engine, graph: Graph, variant: Variant, path: Path, options: SessionOptions
) -> Session:
    """A session over packed weights that others share, where that is worth it."""
    from edge_sdk.runtime.prepared import weight_file

    if not weight_file.is_wanted(graph, options):
        return engine.open(path, options)
    try:
        return weight_file.open_graph(engine, graph, variant, path, options)
    except (OSError, EdgeSdkError) as error:
        why = str(error).partition("\n")[0]
    plain = engine.open(path, options)
    return _noted(plain, f"graph {graph.name!r} packs its weights for itself: {why}")


def _open_prepared(
    engine: OnnxEngine,
    graph: Graph,
    variant: Variant,
    options: SessionOptions,
    verify: Verify,
    progress: Progress | None,
    meanwhile: Callable[[], None] | None,
) -> Session | None:
    """A session over prepared weights; ``None`` where the graph has none to prepare."""
    place = _place(graph, variant, options)
    index = _found(place)
    stamps = Stamps(place.stamps_path, trusted=verify != "always") if verify else None
    if stamps:
        _verify(stamps, variant, graph, index.unread if index else ())
    made_now = index is None
    if index is None:
        index = make(place, options, progress)
    if index.refused:
        raise EngineError(index.refused)
    if not index.weights:
        return None
    try:
        if stamps and index.witness:  # else it was written just now
            place.verify(index, stamps)
        session = _open_checked(engine, place, index, variant, options, meanwhile)
        if stamps:
            stamps.save(place.folder)
    except (OSError, EdgeSdkError):
        if index.witness:  # it was right once, so its files or the engine have changed
            place.remove(index)
        raise
    if index.witness:
        return session
    return _noted(session, _said(index.preparation, made_now))


def _open_checked(
    engine: OnnxEngine,
    place: Place,
    index: Index,
    variant: Variant,
    options: SessionOptions,
    meanwhile: Callable[[], None] | None,
) -> Session:
    """A session that computes what it should; what was prepared just now is checked in full."""
    lean = dataclasses.replace(options, arena=False)
    model = place.model(index)
    if meanwhile:
        meanwhile()
    # What is still mapped as it is, is the embedding table. Other sessions may map the same file,
    # and a range of theirs becomes another one's memory when they close.
    raw = {hex_of(blob.digest) for blob in place.graph.weights}
    with _opening:
        others = process.named(raw)
        session = engine.open_bytes(model, place.blobs.root.resolve(), lean)
        session.tables = process.read_no_more_than_asked(raw, others)
    session.shares_weights = True
    process.trim()
    cases = [case for case in variant.record.golden if case.graph == place.graph.name]
    if index.witness:
        witness.compare(witness.testify(session, cases[0], place.blobs), index.witness)
        return session
    try:
        golden.self_test(cases, {place.graph.name: session}, place.blobs)
        found = witness.testify(session, cases[0], place.blobs)
    except EdgeSdkError as error:
        if error.__cause__ is None:  # a result, and not an engine that failed for want of memory
            # Said at every load from now on, but not tried again.
            record(place, msgspec.structs.replace(index, refused=str(error)))
        raise
    record(place, msgspec.structs.replace(index, witness=found))
    return session


def _place(graph: Graph, variant: Variant, options: SessionOptions) -> Place:
    """Where the graph's prepared files belong.

    Raises:
        EngineError: onnxruntime is of a version whose internal format is not known.
        BundleError: Nothing could tell whether the prepared graph computes the right thing.
    """
    import onnxruntime

    if onnxruntime.__version__ not in TESTED:
        raise EngineError(
            f"onnxruntime {onnxruntime.__version__} may pack weights in another form "
            f"than {' or '.join(TESTED)}, which this was tested with"
        )
    if not any(case.graph == graph.name for case in variant.record.golden):
        raise BundleError("the variant has no golden case to check them with")
    return Place.of(variant, graph, layout_id(options))


def _found(place: Place) -> Index | None:
    try:
        return place.find()
    except BundleError:
        place.remove()
        raise


def _runs_on_cpu(record: VariantRecord, options: SessionOptions) -> bool:
    return record.kind == "decoder" and all(name == CPU for name in options.providers)


def _verify(stamps: Stamps, variant: Variant, graph: Graph, unread: Container[str]) -> None:
    for blob in (*graph.parts, *graph.weights):
        if blob.digest not in unread:
            path = variant.blob_path(blob.digest)
            stamps.verify(path, blob.digest, partial(variant.verify_blob, blob))


def _noted(session: Session, note: str) -> Session:
    from edge_sdk.runtime.engines.litert import LiteRtSession

    if isinstance(session, OnnxSession | LiteRtSession):
        session.notes = (*session.notes, note)
    return session


def _said(done: Preparation, made_now: bool) -> str:
    if not made_now:
        return f"checked {done.weights} weights that a load that did not finish had prepared"
    return (
        f"prepared {done.weights} weights in {done.seconds:.1f} s: "
        f"{done.disk / 1e6:.1f} MB, {done.new / 1e6:.1f} MB of them new; "
        f"{done.memory / 1e6:.1f} MB of memory at most"
    )
