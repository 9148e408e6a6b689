"""From a decoder variant to a generator: the plan, the sessions, the tokenizer.

::

    plan ── engine packs and maps weights ───────── check ── Generator
              └─ modules, chat template, tokenizer (a thread) ───┘ when a text is first needed

The engine is busy for the better part of a start and lets Python go on, so everything
that does not need the graph happens meanwhile.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from edge_sdk.bundle.reader import Variant
from edge_sdk.bundle.record import Generation, VariantRecord
from edge_sdk.errors import BundleError, EngineError, MemoryLimitError
from edge_sdk.runtime import sessions
from edge_sdk.runtime.generation.ahead import Ahead
from edge_sdk.runtime.generation.memory import ContextPlan, KvType, plan_context
from edge_sdk.runtime.prepared import Verify
from edge_sdk.runtime.tokenizer import Tokenizer, open_tokenizer, prepare_tokenizer

if TYPE_CHECKING:
    from edge_sdk.runtime.engine import Session
    from edge_sdk.runtime.generation.generator import Generator

# Streams that may run at once where the caller does not say; more gain little on few cores.
STREAMS = (4, 2, 1)
# What a session takes beside weights that it shares with others, in bytes.
SESSION = 32 * 1024 * 1024
# By the KV cache's element type, the preferred one first.
GRAPHS: dict[KvType, str] = {"float32": "main", "int8": "main-kv8"}


def open_generator(
    variant: Variant,
    threads: int | None,
    limit: int | None,
    context: int | None,
    streams: int | None,
    *,
    prepare: bool = True,
    verify: Verify = False,
) -> Generator:
    """Plans the KV cache and opens the graph that goes with it.

    Args:
        variant: A variant with a ``generation`` part.
        threads: Intra-op threads; the profile's by default.
        limit: What the process may use, in bytes.
        context: Tokens per stream; as many as the model and the limit allow by default.
        streams: Streams that may run at once; up to four by default.
        prepare: Whether weights may be packed for this CPU into files that sessions share.
        verify: Whether to hash the graph and the weights that it reads.

    Raises:
        MemoryLimitError: Not even a short context fits; nothing was loaded.
        InputError: ``context`` or ``streams`` is out of range.
        EngineError: The engine refused the graph.
    """
    record = variant.record
    graphs = {graph.name for graph in record.graphs}
    kv_types = tuple(kv for kv, graph in GRAPHS.items() if graph in graphs)
    if not kv_types:
        raise BundleError("the variant has no such graph", where="graph 'main'")
    plan = plan_streams(record, limit, context, streams, kv_types)
    most = threads if threads is not None else sessions.default_threads(record.profile)
    if prepare:
        with suppress(BundleError):  # it is said when text is to be read
            prepare_tokenizer(variant)
    tokenizer = Ahead(lambda: _read_text_side(variant, prepare))
    opened: dict[tuple[str, int], Session] = {}

    def open_session(graph: str, threads: int) -> Session:
        if (graph, threads) not in opened:
            shared = all(getattr(session, "shares_weights", False) for session in opened.values())
            _admit_session(plan, limit, len(opened), shared, graph)
            new = all(graph != name for name, _ in opened)
            opened[graph, threads] = sessions.open_graph(
                variant, graph, threads, limit is None,
                prepare=prepare, verify=verify if new else False,
                meanwhile=None if opened else tokenizer.start,
            )  # fmt: skip
        return opened[graph, threads]

    try:
        open_session(GRAPHS[plan.kv], most)
    except EngineError:
        if plan.kv == kv_types[0]:
            raise
        # ONNX Runtime has int8 caches on CPUs from 1.27; before, the context is shortened more.
        plan = plan_streams(record, limit, context, streams, kv_types[:1])
    from edge_sdk.runtime.generation.generator import Generator

    return Generator(record, variant.blobs, plan, open_session, most, tokenizer)


def _admit_session(
    plan: ContextPlan, limit: int | None, opened: int, shared: bool, where: str
) -> None:
    """Refuses a session beside others that would not fit; the first one is in the plan."""
    each = SESSION if shared else SESSION + plan.memory.weights_private
    peak = plan.peak + opened * each
    if limit is not None and opened and peak > limit:
        raise MemoryLimitError(
            f"one more session is predicted to need {peak / 2**20:.1f} MiB in all, "
            f"the limit is {limit / 2**20:.1f} MiB",
            where=f"graph {where!r}",
            remedy="raise the limit, or load with a shorter context or fewer streams",
        )


def plan_streams(
    record: VariantRecord,
    limit: int | None,
    context: int | None,
    streams: int | None,
    kv_types: tuple[KvType, ...],
) -> ContextPlan:
    """The KV cache for as many streams as were asked for.

    Where nobody asked, more than one only if that neither shortens nor coarsens the context.
    """

    def plan(rows: int) -> ContextPlan:
        return plan_context(
            record.memory,
            generation_of(record),
            limit,
            context=context,
            rows=rows,
            kv_types=kv_types,
            where=f"{record.name} ({record.profile})",
        )

    if streams is not None:
        return plan(streams)
    one = plan(1)
    for rows in STREAMS:
        room = one.kv_bytes * rows
        if limit is None or record.memory.peak + room <= limit:
            return plan(rows)
    return one


def generation_of(record: VariantRecord) -> Generation:
    """The record's ``generation`` part.

    Raises:
        BundleError: It has none.
    """
    if record.generation is None:
        raise BundleError("the record says nothing of generation", where=record.name)
    return record.generation


def _read_text_side(variant: Variant, prepare: bool) -> Tokenizer:
    """The variant's tokenizer; whatever else takes time before a first answer is done too."""
    from edge_sdk.runtime.generation import chat_template, generator  # noqa: F401 - takes time

    template = generation_of(variant.record).chat_template
    if template:
        with suppress(BundleError):  # it is said when it is to be used
            chat_template.compiled(template)
    return open_tokenizer(variant, prepare=prepare)
