"""An encoder-decoder variant, ready to write: text or arrays in, a completion out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.bundle.record import Decoding, TensorSpec, VariantRecord
from edge_sdk.errors import DataError, InputError
from edge_sdk.runtime import memory
from edge_sdk.runtime.generation.completion import Completion
from edge_sdk.runtime.generation.generator import all_of, overridden
from edge_sdk.runtime.generation.memory import ContextPlan
from edge_sdk.runtime.generation.sampling import Sampler
from edge_sdk.runtime.generation.text_stream import TextStream
from edge_sdk.runtime.inputs import check_inputs, dimensions
from edge_sdk.runtime.pipeline import Pipeline
from edge_sdk.runtime.seq2seq.network import DECODER, ENCODER, Network
from edge_sdk.runtime.seq2seq.outputs import Outputs, Reading
from edge_sdk.runtime.seq2seq.prompt import start_of
from edge_sdk.runtime.seq2seq.rules import RuledSampler
from edge_sdk.runtime.steps import Tokenize, find_step, parse_steps

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from edge_sdk.runtime.engine import Array, Feeds, Session
    from edge_sdk.runtime.engine import Outputs as Arrays
    from edge_sdk.runtime.generation.ahead import Ahead


TEXT = "input_ids"


class Writer:
    """One loaded encoder-decoder variant. Safe to call from several threads.

    Attributes:
        inputs: What :meth:`run` takes: the encoder's inputs and the output's tokens.
        outputs: What it returns: logits after each of those tokens.
        sessions: Graph name -> session, for the self-test.
        notes: Where this machine differs from what was asked for.
        plan: The decoder's past.
        scheduler: Runs the outputs that are being written.

    Args:
        record: The variant.
        decoding: How it writes.
        sessions: Graph name -> session.
        plan: The decoder's past.
        tokenizer: The variant's tokenizer, which may still be on its way.
        limit: What the process may use, in bytes.

    Raises:
        EngineError: The engine cannot run a decoder.
        BundleError: The graphs have another signature.
    """

    def __init__(
        self,
        record: VariantRecord,
        decoding: Decoding,
        sessions: Mapping[str, Session],
        plan: ContextPlan,
        tokenizer: Ahead[Tokenizer],
        limit: int | None,
    ) -> None:
        self._record = record
        self._decoding = decoding
        self._pipeline = Pipeline(record, sessions)
        self._tokenizer = tokenizer
        self._limit = limit
        self._step = find_step(parse_steps(record.preprocess), Tokenize)
        self.plan = plan
        self.inputs: tuple[TensorSpec, ...] = self._pipeline.inputs
        self.outputs: tuple[TensorSpec, ...] = self._pipeline.outputs
        self.sessions: Mapping[str, Session] = sessions
        self.notes = self._pipeline.notes
        self._reads = sessions[ENCODER].inputs
        network = Network(sessions[ENCODER], sessions[DECODER], record.wiring, record.states)
        self.scheduler = Outputs(network, plan.rows, plan.capacity)

    def generate(
        self,
        prompt: object,
        *,
        max_new_tokens: int | None,
        sampling: Mapping[str, float | None],
        stop: str | Sequence[str],
        stop_tokens: Sequence[int],
        raw: bool,
        adapter: str | None,
    ) -> Completion:
        """Queues a text, or the encoder's inputs; see :meth:`edge_sdk.Model.generate`."""
        if adapter is not None:
            raise InputError(f"no adapter {adapter!r}; there are: none", where="adapter")
        feeds = prompt if isinstance(prompt, Mapping) else self._tokens(prompt)
        return self.write(
            feeds,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stop=stop,
            stop_tokens=stop_tokens,
        )

    def write(
        self,
        feeds: Mapping[str, Any],
        *,
        language: str | None = None,
        task: str | None = None,
        max_new_tokens: int | None = None,
        sampling: Mapping[str, float | None] | None = None,
        stop: str | Sequence[str] = (),
        stop_tokens: Sequence[int] = (),
    ) -> Completion:
        """Queues an input that is arrays already.

        Args:
            feeds: The encoder's inputs, of batch 1.
            language: What is spoken, for a model that is told so; the likeliest by default.
            task: ``transcribe`` or ``translate``, for a model that is told so.
            max_new_tokens: Most tokens to draw; the model's own limit by default.
            sampling: Settings in place of the model's own.
            stop: Strings that end the text and are no part of it.
            stop_tokens: Tokens that do so, beside the model's own.

        Raises:
            InputError: A setting is out of its range, or no language or task of the model.
            DataError: An input does not fit.
            MemoryLimitError: Reading it is predicted not to fit the memory limit.
        """
        checked = self._checked(feeds)
        start = start_of(self._decoding, language, task)
        rules = self._decoding
        sampler = Sampler(overridden(rules.sampling, sampling or {}), start.tokens)
        texts = all_of(str, (stop,) if isinstance(stop, str) else stop, "stop")
        eos = (*rules.eos, *all_of(Integral, stop_tokens, "stop_tokens"))
        source = checked[TEXT][0].tolist() if TEXT in checked else ()
        request = Reading(
            prompt=start.tokens,
            sampler=RuledSampler(rules, sampler, start.tokens, source),
            text=TextStream(self._tokenizer.get(), tuple(texts)),
            limit=self._room(max_new_tokens, len(start.tokens)),
            stop_tokens=frozenset(eos),
            feeds=checked,
            languages=start.languages,
        )
        return Completion(self.scheduler, request)

    def run(self, feeds: Feeds) -> Arrays:
        """Logits after each token of ``decoder_input_ids``: teacher forcing."""
        return self._pipeline.run(feeds)

    def close(self) -> None:
        """Ends all completions as cancelled, and lets go of sessions and memory."""
        self.scheduler.close()
        self._pipeline.close()

    def _tokens(self, prompt: object) -> dict[str, Array]:
        """The encoder's inputs for a text, cut at the variant's ``max_length``."""
        if self._step is None:
            raise InputError(
                "this model does not read text",
                where=f"{self._record.name} ({self._record.profile})",
                remedy="use transcribe(), or give the encoder's inputs as arrays",
            )
        if not isinstance(prompt, str):
            raise DataError(
                f"expected a text, given {type(prompt).__name__}",
                where="prompt",
                remedy="give a str; a conversation is for dialogue models",
            )
        try:
            found = self._tokenizer.get().encode(prompt)
        except TypeError as error:
            raise DataError("is not UTF-8", where="prompt") from error
        arrays = {"ids": found.ids, "mask": found.attention_mask, "types": found.type_ids}
        return {
            name: np.array([arrays[kind]], np.int64) for name, kind in self._step.inputs.items()
        }

    def _checked(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """The encoder's inputs: one sample, that fits the limit."""
        checked = check_inputs(self._reads, feeds, "error")
        for name, array in checked.items():
            if array.shape[0] != 1:
                raise DataError(
                    f"holds {array.shape[0]} samples",
                    where=f"input {name!r}",
                    remedy="give one at a time; several completions may run at once",
                )
            if not array.size:
                raise DataError("the input is empty", where=f"input {name!r}")
        if self._limit is not None:
            where = f"{self._record.name} ({self._record.profile}), this input"
            left = self._limit - self.plan.kv_bytes
            memory.admit(self._record.memory, left, where, dimensions(self._reads, checked))
        return checked

    def _room(self, max_new_tokens: int | None, start: int) -> int:
        """Most tokens to draw; an end that a limit forces upon an output is not drawn."""
        room = self.plan.capacity - start
        if room < 1:
            raise InputError(
                f"a context of {self.plan.capacity} tokens leaves none to write", where="context"
            )
        if max_new_tokens is None:
            longest = self._decoding.max_length
            room = room if longest is None else min(room, longest - start)
        elif not (isinstance(max_new_tokens, Integral) and max_new_tokens >= 1):
            raise InputError(
                f"must be a whole number from 1 up, given {max_new_tokens!r}",
                where="max_new_tokens",
            )
        else:
            room = min(room, int(max_new_tokens) - self._decoding.forced)
        return max(1, room - self._decoding.forced_eos)
