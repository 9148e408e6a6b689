"""A decoder variant, ready to generate: prompt to request, request to completion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.reader import Variant
from edge_sdk.bundle.record import Adapter, Generation, Sampling, TensorSpec, VariantRecord
from edge_sdk.errors import BundleError, DataError, EngineError, InputError, MemoryLimitError
from edge_sdk.runtime import sessions
from edge_sdk.runtime.generation.adapters import GRAPH_SUFFIX
from edge_sdk.runtime.generation.completion import Completion
from edge_sdk.runtime.generation.decoder import Decoder, Logits, kv_dtype
from edge_sdk.runtime.generation.decoders import Decoders
from edge_sdk.runtime.generation.kv import KVCache
from edge_sdk.runtime.generation.memory import ContextPlan, KvType, plan_context
from edge_sdk.runtime.generation.prompt import Prompt, PromptEncoder, check_tokens
from edge_sdk.runtime.generation.sampling import Sampler
from edge_sdk.runtime.generation.scheduler import Scheduler
from edge_sdk.runtime.generation.stream import Request
from edge_sdk.runtime.generation.text_stream import TextStream

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from edge_sdk.runtime.engine import Feeds, Outputs, Session
    from edge_sdk.runtime.generation.decoders import OpenSession

TOKENIZER = "tokenizer.json"
TOKENIZER_LIMIT = 64 * 1024 * 1024  # largest tokenizer that is read, in bytes
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
    verify: bool = False,
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
    opened: dict[tuple[str, int], Session] = {}

    def open_session(graph: str, threads: int) -> Session:
        if (graph, threads) not in opened:
            shared = all(getattr(session, "shares_weights", False) for session in opened.values())
            _admit_session(plan, limit, len(opened), shared, graph)
            new = all(graph != name for name, _ in opened)
            opened[graph, threads] = sessions.open_graph(
                variant, graph, threads, limit is None, prepare=prepare, verify=verify and new
            )
        return opened[graph, threads]

    try:
        return Generator(record, variant.blobs, plan, open_session, most)
    except EngineError:
        if plan.kv == kv_types[0]:
            raise
        # ONNX Runtime has int8 caches on CPUs from 1.27; before, the context is shortened more.
        plan = plan_streams(record, limit, context, streams, kv_types[:1])
        return Generator(record, variant.blobs, plan, open_session, most)


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


class Generator:
    """One loaded decoder variant. Safe to call from several threads.

    Attributes:
        inputs: What :meth:`run` takes: ``input_ids``.
        outputs: What it returns: ``logits``.
        sessions: Graph name -> session, for the self-test.
        notes: Where this machine differs from what was asked for.
        plan: The KV cache.
        scheduler: Runs the streams.

    Args:
        record: The variant.
        blobs: Where its tokenizer is.
        plan: The KV cache to make.
        open_session: Opens a graph of the variant, given its name and the number of
            threads; a second time the same session comes back.
        threads: Threads on an idle machine.

    Raises:
        EngineError: The engine refused the graph.
    """

    def __init__(
        self,
        record: VariantRecord,
        blobs: BlobStore,
        plan: ContextPlan,
        open_session: OpenSession,
        threads: int,
    ) -> None:
        self._record = record
        self._blobs = blobs
        self._generation = generation_of(record)
        self.plan = plan
        graph = GRAPHS[plan.kv]
        session = self._session = open_session(graph, threads)
        vocab = self._generation.vocab
        self.inputs = (TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence")),)
        self.outputs = (
            TensorSpec(name="logits", dtype="float32", shape=("batch", "sequence", vocab)),
        )
        self.sessions: Mapping[str, Session] = {graph: session}
        self.notes = (*session.notes, *_notes(plan))
        self._adapters = _adapters(record, graph)
        cache = self._cache(plan.rows, plan.capacity)
        self.scheduler = Scheduler(
            Decoders(open_session, graph, cache, vocab, threads, self._adapters, blobs)
        )

    def generate(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int | None,
        sampling: Mapping[str, float | None],
        stop: str | Sequence[str],
        stop_tokens: Sequence[int],
        raw: bool,
        adapter: str | None,
    ) -> Completion:
        """Queues a prompt; see :meth:`edge_sdk.Model.generate`."""
        encoded = self._prompts.encode(prompt, raw)
        tokens = encoded.tokens
        self._check_room(tokens)
        room = self.plan.capacity - len(tokens)
        if max_new_tokens is not None and not (
            isinstance(max_new_tokens, Integral) and max_new_tokens >= 1
        ):
            raise InputError(
                f"must be a whole number from 1 up, given {max_new_tokens!r}",
                where="max_new_tokens",
            )
        if adapter is not None and adapter not in self._adapters:
            known = ", ".join(sorted(self._adapters)) or "none"
            raise InputError(f"no adapter {adapter!r}; there are: {known}", where="adapter")
        texts = _all_of(str, (stop,) if isinstance(stop, str) else stop, "stop")
        stops = (*texts, *encoded.stop)
        request = Request(
            prompt=tokens,
            sampler=Sampler(_overridden(self._generation.sampling, sampling), tokens),
            text=TextStream(self.tokenizer, stops, after=() if encoded.answers else tokens),
            limit=min(room, max_new_tokens or room),
            stop_tokens=frozenset(
                (*self._generation.eos, *_all_of(Integral, stop_tokens, "stop_tokens"))
            ),
            adapter=adapter,
        )
        return Completion(self.scheduler, request)

    def logits(self, tokens: Sequence[int]) -> Logits:
        """Logits after every token, ``[tokens, vocab]``; see :meth:`edge_sdk.Model.logits`."""
        if not isinstance(tokens, Sized):
            raise DataError(f"{tokens!r} is no list of tokens", where="tokens")
        if not len(tokens):
            return np.zeros((0, self._generation.vocab), np.float32)
        if len(tokens) > self._generation.context:
            raise DataError(
                f"{len(tokens)} tokens, the model's context is {self._generation.context}",
                where="tokens",
            )
        check_tokens(tokens, self._generation.vocab)
        cache = self._cache(1, len(tokens))
        return Decoder(self._session, cache, self._generation.vocab).logits(tokens)

    def run(self, feeds: Feeds) -> Outputs:
        """Logits of each row of ``input_ids``."""
        ids = feeds["input_ids"]
        rows = [self.logits(row) for row in ids.tolist()]
        shape = (*ids.shape, self._generation.vocab)
        return {"logits": np.stack(rows) if rows else np.zeros(shape, np.float32)}

    def close(self) -> None:
        """Ends all completions as cancelled, and lets go of sessions and KV cache."""
        self.scheduler.close()

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, nothing added."""
        return self._prompts.text(text)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The variant's tokenizer.

        Raises:
            BundleError: It has none, or it cannot be read.
        """
        from tokenizers import Tokenizer

        for file in self._record.files:
            if file.path == TOKENIZER:
                data = self._blobs.read(file.blob, TOKENIZER_LIMIT)
                break
        else:
            raise BundleError("the variant has no such file", where=TOKENIZER)
        try:
            tokenizer = Tokenizer.from_buffer(data)
        except ValueError as error:
            raise BundleError(f"not a readable tokenizer: {error}", where=TOKENIZER) from error
        tokenizer.no_padding()  # some are shipped as training left them
        tokenizer.no_truncation()
        return tokenizer

    @cached_property
    def _prompts(self) -> PromptEncoder:
        return PromptEncoder(self._generation, self.tokenizer)

    def _cache(self, rows: int, capacity: int) -> KVCache:
        return KVCache(self._generation, rows, capacity, kv_dtype(self._session))

    def _check_room(self, tokens: Sequence[int]) -> None:
        """A prompt must leave room for one more token."""
        if len(tokens) >= self.plan.capacity:
            raise DataError(
                f"the prompt has {len(tokens)} tokens; the context of {self.plan.capacity} "
                "must hold it and an answer",
                where="prompt",
                remedy="shorten the prompt"
                + (", or raise the memory limit" if self.plan.shortened else ""),
            )


def _overridden(sampling: Sampling, given: Mapping[str, float | None]) -> Sampling:
    return msgspec.structs.replace(
        sampling, **{field: value for field, value in given.items() if value is not None}
    )


def _all_of(kind: type, given: Any, where: str) -> Iterable[Any]:
    if isinstance(given, Iterable) and all(isinstance(item, kind) for item in given):
        return given
    raise InputError(f"{given!r} is no list of {'texts' if kind is str else 'tokens'}", where=where)


def _adapters(record: VariantRecord, graph: str) -> dict[str, Adapter]:
    """The adapters by name, where the graph has a sibling that takes them."""
    if graph + GRAPH_SUFFIX not in {each.name for each in record.graphs}:
        return {}
    return {adapter.name: adapter for adapter in record.adapters}


def _notes(plan: ContextPlan) -> tuple[str, ...]:
    if not plan.shortened:
        return ()
    return (
        f"the memory limit leaves a context of {plan.capacity} tokens, {plan.wished} were wished",
    )
