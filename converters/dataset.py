"""Calibration and evaluation data as the converters see it.

A dataset is a tuple of samples; a sample is a sequence of calls (one call for
a stateless model); a call is a mapping from input name to array. Recurrent
states are not in the data: they start at their initial value and roll forward
along each sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_sdk.bundle.record import State
from edge_sdk.runtime.engine import Session

Array = NDArray[np.generic]
Feeds = Mapping[str, Array]
Outputs = dict[str, Array]


@dataclass(frozen=True)
class Dataset:
    """Samples to calibrate on or to evaluate with.

    Attributes:
        samples: Sample -> calls -> input name -> array, states excluded.
        labels: First axis = samples, where the data has labels.
        origin: ``user``, ``generated`` or ``base`` (taken from a base bundle).
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
        sample: The calls of one sample, states excluded.
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
