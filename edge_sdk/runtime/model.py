"""``edge_sdk.load`` and the loaded model: one variant, ready to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.record import State, TensorSpec, VariantRecord
from edge_sdk.runtime import golden, memory, sessions
from edge_sdk.runtime.arrays import read_array
from edge_sdk.runtime.inputs import Array, NanPolicy, check_inputs, dimensions
from edge_sdk.runtime.pipeline import Pipeline, caller_inputs
from edge_sdk.runtime.scores import Float32
from edge_sdk.runtime.steps import Classification
from edge_sdk.runtime.text_tasks import DEFAULT_BATCH, TextTasks

__all__ = ["Model", "Stream", "load"]


def load(
    path: str | Path,
    profile: str = "auto",
    memory_limit: int | str | None = None,
    *,
    threads: int | None = None,
    verify: bool = True,
    nan: NanPolicy = "error",
) -> Model:
    """Loads one variant of a bundle.

    Args:
        path: The bundle's directory.
        profile: Device profile of the variant; ``auto`` picks one for this machine.
        memory_limit: What the process may use: bytes, or text such as ``"256MiB"``.
            A variant or call predicted to need more is refused.
        threads: Intra-op threads; the profile's by default, at most the cores there are.
        verify: Whether to hash every blob before anything is loaded.
        nan: What to do about NaN in float inputs.

    Raises:
        BundleError: The bundle is damaged, or has no such variant.
        ProfileError: No variant suits this machine.
        MemoryLimitError: The variant is predicted not to fit; nothing was loaded.
        MissingEngineError: The variant's engine is not installed.
        EngineError: The engine refused a graph.
    """
    variant = sessions.choose_variant(open_bundle(path), profile)
    record = variant.record
    limit = None if memory_limit is None else memory.parse_size(memory_limit)
    if limit is not None:
        memory.admit(record.memory, limit, f"{record.name} ({record.profile})")
    if verify:
        variant.verify()
    pipeline = sessions.open_pipeline(variant, threads, arena=limit is None)
    return Model(record, pipeline, variant.blobs, memory_limit=limit, nan=nan)


class Model:
    """One loaded variant. Safe to call from several threads.

    Attributes:
        record: What the variant is: signature, recipe, memory plan, provenance.
        inputs: What :meth:`run` takes; recurrent states are optional.
        outputs: What :meth:`run` returns.
        notes: Where this machine differs from what the variant asks for.
    """

    def __init__(
        self,
        record: VariantRecord,
        pipeline: Pipeline,
        blobs: BlobStore,
        *,
        memory_limit: int | None = None,
        nan: NanPolicy = "error",
    ) -> None:
        self.record = record
        self.inputs: tuple[TensorSpec, ...] = caller_inputs(record)
        self.outputs: tuple[TensorSpec, ...] = record.outputs
        self.notes = pipeline.notes
        self._pipeline = pipeline
        self._blobs = blobs
        self._memory_limit = memory_limit
        self._nan = nan
        self._text = TextTasks(record, blobs, self.inputs, self.run)

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
                    feeds[state.input] = self._initial(state, sizes)
            if self._memory_limit is not None:
                where = f"{self.record.name} ({self.record.profile}), this call"
                memory.admit(self.record.memory, self._memory_limit, where, sizes)
        return self._pipeline.run(feeds)

    def stream(self) -> Stream:
        """A sequence of calls that carries the recurrent states forward."""
        return Stream(self)

    def embed(self, texts: str | Sequence[str], batch: int = DEFAULT_BATCH) -> Float32:
        """One vector per text.

        Args:
            texts: A text or several; each is cut at the variant's ``max_length``.
            batch: Largest number of texts run at once.

        Returns:
            ``[texts, size]``, float32.

        Raises:
            InputError: The variant does not embed texts.
        """
        return self._text.embed(texts, batch)

    def classify(
        self, given: str | Sequence[str] | Mapping[str, Any], top: int = 5
    ) -> list[list[Classification]]:
        """The best classes of each text, or of each row of a batch of inputs.

        Args:
            given: A text or several, or inputs as for :meth:`run`.
            top: Number of classes per row, best first.

        Raises:
            InputError: The variant has no labels, or takes no text.
        """
        return self._text.classify(given, top)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in order; none where the variant does not classify."""
        return self._text.labels

    def self_test(self) -> golden.SelfTest:
        """Runs the variant's golden inputs and compares with its golden outputs.

        Raises:
            EngineError: An output deviates by more than its tolerance.
        """
        return golden.self_test(self.record.golden, self._pipeline.sessions, self._blobs)

    def _initial(self, state: State, sizes: Mapping[str, int]) -> Array:
        """The value before the first call.

        A dimension that no input fixes is one (a batch), or zero where it counts the past.
        """
        if state.initial is not None:
            return read_array(state.initial, self._blobs)
        spec = next(spec for spec in self.inputs if spec.name == state.input)
        shape = [
            size if isinstance(size, int) else sizes.get(size, int("past" not in size.lower()))
            for size in spec.shape or ()
        ]
        return np.zeros(shape, spec.dtype)


class Stream:
    """Calls in a row, each starting from the state the one before has left.

    Not to be shared between threads; a model may have any number of streams.

    Args:
        model: The model that is run.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._states: dict[str, Array] = {}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Runs one step; takes, returns and raises what :meth:`Model.run` does."""
        outputs = self._model.run({**self._states, **inputs})
        self._states = {state.input: outputs[state.output] for state in self._model.record.states}
        return outputs

    def reset(self) -> None:
        """Goes back to the initial state."""
        self._states = {}
