"""What calibration learns about the activations of a float graph.

Statistics are named by value and independent of any recipe: one run over the
calibration data serves every candidate, and stored beside a variant they let
``--base`` give unchanged layers unchanged bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

HISTOGRAM_BINS = 2048


@dataclass(frozen=True)
class TensorStatistics:
    """Statistics of one float activation over the calibration data.

    Attributes:
        low: Smallest value seen.
        high: Largest value seen.
        histogram: Counts, int64 [HISTOGRAM_BINS], over ``[-absmax, absmax]``.
        channel_absmax: Largest magnitude per index of the last axis, float32 [channels].
    """

    low: float
    high: float
    histogram: NDArray[np.int64] | None = None
    channel_absmax: NDArray[np.float32] | None = None

    @property
    def absmax(self) -> float:
        """Largest magnitude seen."""
        return max(abs(self.low), abs(self.high))


@dataclass(frozen=True)
class Statistics:
    """Statistics by value name; a value that never was seen is absent."""

    tensors: Mapping[str, TensorStatistics] = field(default_factory=dict)

    def __getitem__(self, name: str) -> TensorStatistics:
        return self.tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def get(self, name: str | None) -> TensorStatistics | None:
        """The statistics of a value, or ``None`` if it was not calibrated."""
        return self.tensors.get(name or "")
