"""A decoder variant, ready to generate: prompt to request, request to completion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import Adapter, Sampling, TensorSpec, VariantRecord
from edge_sdk.errors import DataError, InputError
from edge_sdk.runtime.generation import timing
from edge_sdk.runtime.generation.adapters import GRAPH_SUFFIX
from edge_sdk.runtime.generation.ahead import Ahead
from edge_sdk.runtime.generation.completion import Completion
from edge_sdk.runtime.generation.decoder import Decoder, Logits, kv_dtype
from edge_sdk.runtime.generation.decoders import Decoders
from edge_sdk.runtime.generation.kv import KVCache
from edge_sdk.runtime.generation.memory import ContextPlan
from edge_sdk.runtime.generation.opening import GRAPHS, generation_of
from edge_sdk.runtime.generation.prompt import Prompt, PromptEncoder, check_tokens
from edge_sdk.runtime.generation.sampling import Sampler
from edge_sdk.runtime.generation.scheduler import Scheduler
from edge_sdk.runtime.generation.stream import Request
from edge_sdk.runtime.generation.text_stream import TextStream

if TYPE_CHECKING:
    from edge_sdk.runtime.engine import Feeds, Outputs, Session
    from edge_sdk.runtime.generation.decoders import OpenSession
    from edge_sdk.runtime.tokenizer import Tokenizer


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
        blobs: Where its adapters are.
        plan: The KV cache to make.
        open_session: Opens a graph of the variant, given its name and the number of
            threads; a second time the same session comes back.
        threads: Threads on an idle machine.
        tokenizer: The variant's tokenizer, which may still be on its way.

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
        tokenizer: Ahead[Tokenizer],
    ) -> None:
        self._tokenizer = tokenizer
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
        texts = all_of(str, (stop,) if isinstance(stop, str) else stop, "stop")
        stops = (*texts, *encoded.stop)
        request = Request(
            prompt=tokens,
            sampler=Sampler(overridden(self._generation.sampling, sampling), tokens),
            text=TextStream(self.tokenizer, stops, after=() if encoded.answers else tokens),
            limit=min(room, max_new_tokens or room),
            stop_tokens=frozenset(
                (*self._generation.eos, *all_of(Integral, stop_tokens, "stop_tokens"))
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
        return self._decoder(len(tokens)).logits(tokens)

    def time_answers(self, tokens: Sequence[int], seconds: float) -> list[tuple[float, float]]:
        """Times answers; see :meth:`edge_sdk.Model.time_answers`."""
        prompt = timing.prompt_of(tokens, self.plan.capacity)
        return timing.turns(self._decoder(len(prompt) + timing.TIMED), prompt, seconds)

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

    @property
    def tokenizer(self) -> Tokenizer:
        """The variant's tokenizer.

        Raises:
            BundleError: It has none, or it cannot be read.
        """
        return self._tokenizer.get()

    @cached_property
    def _prompts(self) -> PromptEncoder:
        return PromptEncoder(self._generation, self.tokenizer)

    def _decoder(self, capacity: int) -> Decoder:
        """The graph over a cache of its own, of one row."""
        return Decoder(self._session, self._cache(1, capacity), self._generation.vocab)

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


def overridden(sampling: Sampling, given: Mapping[str, float | None]) -> Sampling:
    """A model's own settings with those of a request in their place."""
    return msgspec.structs.replace(
        sampling, **{field: value for field, value in given.items() if value is not None}
    )


def all_of(kind: type, given: Any, where: str) -> Iterable[Any]:
    """``given``, if it is a list of that kind.

    Raises:
        InputError: It is something else.
    """
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
