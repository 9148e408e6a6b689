"""Recurrent states: where they start, and calls that carry them forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import State, TensorSpec
from edge_sdk.runtime.arrays import read_array
from edge_sdk.runtime.inputs import Array

if TYPE_CHECKING:
    from edge_sdk.runtime.model import Model


def initial(
    state: State, inputs: Sequence[TensorSpec], sizes: Mapping[str, int], blobs: BlobStore
) -> Array:
    """A state's value before the first call: the one on record, zeros by default.

    Args:
        state: The state.
        inputs: The model's inputs, this state's among them.
        sizes: Symbolic dimension -> value in this call. One that no input fixes is one
            (a batch), or zero where it counts the past.
        blobs: Where values on record are.
    """
    if state.initial is not None:
        return read_array(state.initial, blobs)
    spec = next(spec for spec in inputs if spec.name == state.input)
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
