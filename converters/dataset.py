"""Calibration and evaluation data as the converters see it.

A dataset is a tuple of samples; a sample is a sequence of calls (one call for
a stateless model); a call is a mapping from input name to array. Recurrent
states start at their initial value and roll forward along each sequence; only
a sample's first call may carry them, where the data gives other initial values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_sdk.bundle.record import State, TensorSpec
from edge_sdk.runtime.engine import Session

Array = NDArray[np.generic]
Feeds = Mapping[str, Array]
Outputs = dict[str, Array]


@dataclass(frozen=True)
class Dataset:
    """Samples to calibrate on or to evaluate with.

    Attributes:
        samples: Sample -> calls -> input name -> array.
        labels: First axis = samples, where the data has labels. One label per step
            of a sequence makes a second axis, or objects where sequences differ in length.
        origin: ``user`` or ``generated``.
        digest: ``sha256:…`` of the content, whatever file it came from.
    """

    samples: tuple[tuple[Feeds, ...], ...]
    labels: Array | None
    origin: str
    digest: str

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, indices: Sequence[int]) -> Dataset:
        """The samples at ``indices``, with their labels; digest and origin stay."""
        labels = None if self.labels is None else self.labels[np.asarray(indices, dtype=np.int64)]
        return Dataset(tuple(self.samples[i] for i in indices), labels, self.origin, self.digest)


def roll(
    session: Session,
    sample: Sequence[Feeds],
    states: Sequence[State],
    initial: Mapping[str, Array],
) -> Iterator[Outputs]:
    """Runs one sample call by call, feeding each state's output back as its input.

    Args:
        session: A session over the whole graph.
        sample: The calls of one sample.
        states: Which output becomes which input.
        initial: State input name -> value before the first call.

    Yields:
        All outputs of each call.
    """
    carried: dict[str, Array] = dict(initial)
    for feeds in sample:
        outputs = session.run({**carried, **feeds})
        carried = {state.input: outputs[state.output] for state in states}
        yield outputs


def zero_states(inputs: Sequence[TensorSpec], states: Sequence[State]) -> dict[str, Array]:
    """Zeros for every state input: batch 1 in free dimensions, and an empty past."""
    bound = {state.input for state in states}
    zeros: dict[str, Array] = {}
    for spec in inputs:
        if spec.name in bound:
            shape = tuple(
                size if isinstance(size, int) else int("past" not in size.lower())
                for size in spec.shape or ()
            )
            zeros[spec.name] = np.zeros(shape, dtype=spec.dtype)
    return zeros


def stack_labels(rows: Sequence[Array]) -> Array:
    """One array of labels from a row per sample; of objects where rows differ in shape."""
    if len({row.shape for row in rows}) == 1:
        return np.stack(rows)
    ragged = np.empty(len(rows), dtype=object)
    ragged[:] = rows
    return ragged
