"""The loaded model: one variant, ready to run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import VariantRecord
from edge_sdk.errors import InputError
from edge_sdk.runtime import golden, memory, process
from edge_sdk.runtime.engine import BackgroundSession
from edge_sdk.runtime.inputs import Array, NanPolicy, check_inputs, dimensions
from edge_sdk.runtime.pipeline import Runner
from edge_sdk.runtime.scores import Float32
from edge_sdk.runtime.states import Stream, initial
from edge_sdk.runtime.tasks.texts import DEFAULT_BATCH
from edge_sdk.runtime.tasks.variant import Variant

if TYPE_CHECKING:
    from edge_sdk.runtime.generation.completion import Completion
    from edge_sdk.runtime.generation.generator import Generator
    from edge_sdk.runtime.generation.prompt import Prompt
    from edge_sdk.runtime.seq2seq.writer import Writer
    from edge_sdk.runtime.tasks.results import (
        Answer,
        Classification,
        Entity,
        Filling,
        Transcription,
    )
    from edge_sdk.runtime.text import Text

__all__ = ["Model", "Stream"]


class Model:
    """One loaded variant. Safe to call from several threads.

    Its memory is free once it is closed (or left by its ``with`` block, or forgotten).

    Attributes:
        record: What the variant is: signature, recipe, memory plan, provenance.
        inputs: What :meth:`run` takes; recurrent states are optional.
        outputs: What :meth:`run` returns.
    """

    def __init__(
        self,
        record: VariantRecord,
        runner: Runner,
        blobs: BlobStore,
        *,
        memory_limit: int | None = None,
        nan: NanPolicy = "error",
    ) -> None:
        self.record = record
        self.inputs = runner.inputs
        self.outputs = runner.outputs
        self._open_runner: Runner | None = runner
        self._blobs = blobs
        self._memory_limit = memory_limit
        self._nan = nan
        self._tasks = Variant(record, blobs, self.inputs, self.run)

    def close(self) -> None:
        """Frees sessions and caches, once the calls that run have ended.

        Completions end as cancelled; further calls are errors.
        """
        runner, self._open_runner = self._open_runner, None
        if runner is not None:
            runner.close()
            del runner
            process.trim()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Runs the model once.

        Args:
            inputs: Input name -> array, Python number or nested list. A recurrent
                state that is left out has its initial value.

        Returns:
            Output name -> array, states included.

        Raises:
            DataError: An input's name, dtype, shape or values do not fit.
            MemoryLimitError: The call is predicted not to fit the memory limit.
            EngineError: The engine failed.
        """
        feeds = check_inputs(self.inputs, inputs, self._nan)
        if self.record.states or self._memory_limit is not None:
            sizes = dimensions(self.inputs, feeds)
            for state in self.record.states:
                if state.input not in feeds:
                    feeds[state.input] = initial(state, self.inputs, sizes, self._blobs)
            if self._memory_limit is not None:
                where = f"{self.record.name} ({self.record.profile}), this call"
                memory.admit(self.record.memory, self._memory_limit, where, sizes)
        return self._runner.run(feeds)

    def stream(self) -> Stream:
        """A sequence of calls that carries the recurrent states forward."""
        return Stream(self)

    def embed(
        self,
        texts: Text | Sequence[Text],
        batch: int = DEFAULT_BATCH,
        *,
        prompt: str | None = None,
    ) -> Float32:
        """One vector per text.

        Args:
            texts: A text or several; each is cut at the variant's ``max_length``. A
                tuple of two texts is one pair.
            batch: Largest number of texts run at once.
            prompt: Name of the model's prompt that goes before each text (``query``,
                ``passage``); its default one by default, and none if it is empty.

        Returns:
            ``[texts, size]``, float32.

        Raises:
            InputError: The variant does not embed texts, or has no such prompt.
        """
        from edge_sdk.runtime.tasks.vectors import embed

        return embed(self._tasks, texts, batch, prompt)

    def classify(
        self,
        given: Text | Sequence[Any] | Array | Path | Mapping[str, Any],
        top: int = 5,
        *,
        rate: int | None = None,
    ) -> list[list[Classification]]:
        """The best classes of each text, picture or sound, or of each row of a batch of inputs.

        Args:
            given: What the variant takes, one or several. Text: a str, or a tuple of two as
                a pair. Pictures: uint8 ``[height, width, 3]`` in RGB (``[height, width]``
                in grey), or a file. Sound: samples from -1 to 1, ``[samples]`` or
                ``[samples, channels]``, or a WAV file. Or inputs as for :meth:`run`.
            top: Number of classes per row, best first.
            rate: Samples per second of sound given as arrays; the model's by default.

        Raises:
            InputError: The variant has no labels, or does not take what is given.
            DataError: A file cannot be read, or an array is no picture or sound.
        """
        from edge_sdk.runtime.tasks.classes import classify

        return classify(self._tasks, given, top, rate)

    def tag(self, texts: str | Sequence[str]) -> list[list[Entity]]:
        """The labelled stretches of each text (named entities, parts of speech), in its order.

        Args:
            texts: A text or several.

        Raises:
            InputError: The variant does not tag texts.
        """
        from edge_sdk.runtime.tasks.entities import tag

        return tag(self._tasks, texts)

    def answer(self, question: str, context: str, top: int = 1) -> list[Answer]:
        """The stretches of a context that best answer a question, best first.

        Args:
            question: What is asked.
            context: Where the answer stands; a long one is read in overlapping windows.
            top: Most answers.

        Raises:
            InputError: The variant does not answer questions.
            DataError: A text is empty, or the question too long.
        """
        from edge_sdk.runtime.tasks.spans import answer

        return answer(self._tasks, question, context, top)

    def fill(self, text: str, top: int = 5) -> list[list[Filling]]:
        """What may stand in each gap of a text, likeliest first.

        Args:
            text: It has the model's mask token (``[MASK]``, ``<mask>``) where words are missing.
            top: Number of fillings per gap.

        Raises:
            InputError: The variant does not fill gaps.
            DataError: The text has no gap.
        """
        from edge_sdk.runtime.tasks.gaps import fill

        return fill(self._tasks, text, top)

    def transcribe(
        self,
        audio: Array | str | Path,
        *,
        rate: int | None = None,
        language: str | None = None,
        task: str | None = None,
    ) -> Transcription:
        """What is said in a clip; a long one is read in windows.

        Args:
            audio: Samples from -1 to 1, ``[samples]`` or ``[samples, channels]``, or a WAV file.
            rate: Samples per second of an array; the model's by default. Files say theirs.
            language: What is spoken, for a model that is told so; the likeliest by default.
            task: ``transcribe`` or ``translate``, for a model that is told so.

        Raises:
            InputError: The variant does not transcribe sound, or knows no such language or task.
            DataError: The file cannot be read, or the array is no sound.
        """
        from edge_sdk.runtime.tasks.speech import dictate, transcribe

        if self.record.decoding is not None:
            return dictate(self._tasks, self._writer.write, audio, rate, language, task)
        if language or task:
            raise self._tasks.cannot("be told language or task", "it writes what it hears")
        return transcribe(self._tasks, audio, rate)

    def generate(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        stop_tokens: Sequence[int] = (),
        raw: bool = False,
        adapter: str | None = None,
    ) -> Completion:
        """Answers a prompt, or rewrites a text; the text comes as it is generated.

        Calls may overlap: their streams are computed together, each as if alone.

        Args:
            prompt: What a user says, a conversation (each message with a role and a
                content), or tokens as they are; for an encoder-decoder model the text
                to translate, to sum up or the like, or its encoder's inputs as arrays.
            max_new_tokens: Most tokens to draw; until the context is full by default.
            temperature: 0 takes the likeliest token. This and the following settings
                replace the model's own (:class:`~edge_sdk.bundle.record.Sampling`).
            top_k: Keep this many likeliest tokens; 0 keeps all.
            top_p: Keep the smallest set of tokens whose probabilities reach this sum.
            min_p: Drop tokens below this share of the likeliest token's probability.
            repetition_penalty: Makes tokens less likely that were seen before.
            seed: Seed of the draws; a fresh one by default.
            stop: Strings that end the text and are no part of it.
            stop_tokens: Tokens that do so, beside the model's own.
            raw: Whether a text is taken as it is, and not as a user's turn in the
                model's chat template.
            adapter: Name of an adapter of the variant.

        Returns:
            An iterator of text pieces. ``finish_reason`` is ``stop``, or ``length`` where
            ``max_new_tokens`` or the context ended it, or ``cancelled``.

        Raises:
            InputError: The variant does not generate text, or a setting is out of its range.
            DataError: The prompt is empty, or longer than the context.
        """
        return self._writes.generate(
            prompt,
            max_new_tokens=max_new_tokens,
            sampling={
                "temperature": temperature,
                "top_k": top_k,
                "top_p": top_p,
                "min_p": min_p,
                "repetition_penalty": repetition_penalty,
                "seed": seed,
            },
            stop=stop,
            stop_tokens=stop_tokens,
            raw=raw,
            adapter=adapter,
        )

    def step(self) -> bool:
        """Computes the next token of every completion that runs, read or not.

        For servers that compute in a thread of their own; reading a completion does the
        same. A step that is running elsewhere is waited for.

        Returns:
            Whether completions remain that need more steps.

        Raises:
            InputError: The variant does not generate text.
        """
        return self._writes.scheduler.step()

    def logits(self, tokens: Sequence[int]) -> Float32:
        """Logits after every one of these tokens: teacher forcing.

        Args:
            tokens: At most the model's context.

        Returns:
            ``[tokens, vocab]``, float32.

        Raises:
            InputError: The variant is no dialogue model.
            DataError: Too many tokens, or one that the model does not know.
        """
        return self._generator.logits(tokens)

    def time_answers(self, tokens: Sequence[int], seconds: float) -> list[tuple[float, float]]:
        """Times a dialogue model's answers, each for itself and over a cache of its own.

        Args:
            tokens: What the prompt consists of, repeated or cut to 128 tokens, or to what
                the context has room for.
            seconds: For how long; two answers at least.

        Returns:
            Of each, the seconds to its first token and per further token.

        Raises:
            InputError: The variant is no dialogue model.
        """
        return self._generator.time_answers(tokens, seconds)

    @property
    def notes(self) -> tuple[str, ...]:
        """Where this machine differs from what the variant asks for, at this moment."""
        return self._open_runner.notes if self._open_runner is not None else ()

    def settle(self, timeout: float | None = None) -> bool:
        """Waits for what goes on in the background: an engine that is compiled for this device.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether it has ended; ``notes`` say how.
        """
        compiling = [s for s in self._runner.sessions.values() if isinstance(s, BackgroundSession)]
        until = None if timeout is None else time.monotonic() + timeout
        return all(
            session.settled.wait(None if until is None else max(0.0, until - time.monotonic()))
            for session in compiling
        )

    @property
    def _runner(self) -> Runner:
        if self._open_runner is None:
            raise InputError(
                "the model was closed", where=f"{self.record.name} ({self.record.profile})"
            )
        return self._open_runner

    @property
    def _generator(self) -> Generator:
        from edge_sdk.runtime.generation.generator import Generator

        if not isinstance(self._runner, Generator):
            raise InputError(
                "this variant does not generate text",
                where=f"{self.record.name} ({self.record.profile})",
                remedy="use run(), embed() or classify()",
            )
        return self._runner

    @property
    def _writes(self) -> Generator | Writer:
        return self._generator if self.record.decoding is None else self._writer

    @property
    def _writer(self) -> Writer:
        from edge_sdk.runtime.seq2seq.writer import Writer

        assert isinstance(self._runner, Writer)
        return self._runner

    @property
    def context(self) -> int:
        """Tokens that each stream has room for, prompt and answer together.

        Of an encoder-decoder model the output alone.

        Raises:
            InputError: The variant does not generate text.
        """
        return self._writes.plan.capacity

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the methods that the variant is made for, beside ``run``."""
        return self._tasks.tasks

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in order; none where the variant does not classify or tag."""
        return self._tasks.labels

    def self_test(self) -> golden.SelfTest:
        """Runs the variant's golden inputs and compares with its golden outputs.

        Raises:
            EngineError: An output deviates by more than its tolerance.
        """
        opened = self._runner.sessions
        idle = {graph.name for graph in self.record.graphs} - set(opened)  # another KV cache's
        cases = [case for case in self.record.golden if case.graph not in idle]
        return golden.self_test(cases, opened, self._blobs)
