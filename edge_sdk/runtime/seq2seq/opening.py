"""From an encoder-decoder variant to a writer: the plan, the sessions, the tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edge_sdk.bundle.reader import Variant
from edge_sdk.bundle.record import Decoding, Generation, VariantRecord
from edge_sdk.errors import BundleError
from edge_sdk.runtime import sessions
from edge_sdk.runtime.generation.ahead import Ahead
from edge_sdk.runtime.generation.memory import ContextPlan, plan_context
from edge_sdk.runtime.generation.opening import STREAMS
from edge_sdk.runtime.seq2seq.network import DECODER, ENCODER, LOGITS
from edge_sdk.runtime.seq2seq.writer import Writer
from edge_sdk.runtime.steps import Tokenize, find_step, parse_steps
from edge_sdk.runtime.tokenizer import read_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def open_writer(
    variant: Variant,
    threads: int | None,
    limit: int | None,
    context: int | None,
    streams: int | None,
) -> Writer:
    """Plans the decoder's past and opens both graphs.

    Args:
        variant: A verified variant with a ``decoding`` part.
        threads: Intra-op threads; the profile's by default.
        limit: What the process may use, in bytes.
        context: Tokens per output; as many as the model and the limit allow by default.
        streams: Outputs that are written at the same time; up to four by default.

    Raises:
        MemoryLimitError: Not even a short output fits; nothing was loaded.
        InputError: ``context`` or ``streams`` is out of range.
        EngineError: The engine refused a graph.
        BundleError: A graph is missing.
    """
    record, decoding = variant.record, decoding_of(variant.record)
    graphs = {graph.name: graph for graph in record.graphs}
    for name in (ENCODER, DECODER):
        if name not in graphs:
            raise BundleError("the variant has no such graph", where=f"graph {name!r}")
    plan = plan_outputs(record, limit, context, streams)
    tokenizer = Ahead(lambda: _truncating(variant))
    opened = {
        ENCODER: sessions.open_graph(
            variant, ENCODER, threads, limit is None, meanwhile=tokenizer.start
        ),
        DECODER: sessions.open_graph(variant, DECODER, threads, limit is None),
    }
    return Writer(record, decoding, opened, plan, tokenizer, limit)


def decoding_of(record: VariantRecord) -> Decoding:
    """The record's ``decoding`` part.

    Raises:
        BundleError: It has none.
    """
    if record.decoding is None:
        raise BundleError("the record says nothing of decoding", where=record.name)
    return record.decoding


def plan_outputs(
    record: VariantRecord, limit: int | None, context: int | None, streams: int | None
) -> ContextPlan:
    """Tokens per output, and outputs at a time: one where several would shorten them.

    Raises:
        MemoryLimitError: Not even a short output fits.
        InputError: ``context`` or ``streams`` is out of range.
    """
    # The past lies in two buffers in turn.
    cost = msgspec.structs.replace(record.memory, kv_per_token=2 * record.memory.kv_per_token)
    shape = _shape(record)

    def plan(rows: int) -> ContextPlan:
        return plan_context(
            cost, shape, limit, context=context, rows=rows, kv_types=("float32",),
            where=f"{record.name} ({record.profile})",
        )  # fmt: skip

    if streams is not None:
        return plan(streams)
    one = plan(1)
    fits = (n for n in STREAMS if limit is None or one.memory.peak + n * one.kv_bytes <= limit)
    return plan(next(fits, 1))


def _shape(record: VariantRecord) -> Generation:
    """The decoder's shape, off its graph, in the words of the planner."""
    decoder = next(graph for graph in record.graphs if graph.name == DECODER)
    states = {state.input for state in record.states}
    past = [spec.shape or () for spec in decoder.inputs if spec.name in states]
    sizes = [(shape[1], shape[3]) for shape in past if len(shape) == 4]
    logits = next((spec.shape or () for spec in decoder.outputs if spec.name == LOGITS), ())
    numbers = [*(sizes[0] if sizes else ()), *logits[-1:]]
    if len(numbers) != 3 or not all(isinstance(number, int) for number in numbers):
        raise BundleError(
            f"heads, their size and vocabulary are {numbers}", where="graph 'decoder'"
        )
    heads, size, vocab = (int(number) for number in numbers)
    return Generation(
        layers=len(past) // 2,
        kv_heads=heads,
        head_dim=size,
        vocab=vocab,
        context=decoding_of(record).context,
    )


def _truncating(variant: Variant) -> Tokenizer:
    """The variant's tokenizer, which cuts what is longer than the encoder reads."""
    tokenizer = read_tokenizer(variant.record, variant.blobs)
    step = find_step(parse_steps(variant.record.preprocess), Tokenize)
    if step is not None:
        tokenizer.enable_truncation(step.max_length)
    return tokenizer
