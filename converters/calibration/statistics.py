"""What calibration learns about the activations of a float graph.

Statistics are named by value and independent of any recipe: one run over the
calibration data serves every candidate, and stored beside a variant they let
``--base`` give unchanged layers unchanged bytes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import BundleError

HISTOGRAM_BINS = 4096
# Below this everything counts as zero; it keeps bin arithmetic inside float32.
SMALLEST_REACH = 2.0**-100


def reach_of(magnitude: float) -> float:
    """The smallest power of two that is not below ``magnitude``: a histogram's extent.

    Extents that are powers of two nest, so a histogram widens by adding up bins exactly,
    and its content does not depend on the order of the data.
    """
    if magnitude <= SMALLEST_REACH:
        return SMALLEST_REACH
    mantissa, exponent = math.frexp(magnitude)
    return math.ldexp(1.0, exponent - 1 if mantissa == 0.5 else exponent)


@dataclass(frozen=True)
class TensorStatistics:
    """Statistics of one float activation over the calibration data.

    Attributes:
        low: Smallest finite value seen.
        high: Largest finite value seen.
        histogram: Counts, int64 [HISTOGRAM_BINS], over ``[-reach, reach]``.
        channel_absmax: Largest magnitude per index of the last axis, float32 [channels];
            ``None`` where the length of that axis varies.
    """

    low: float
    high: float
    histogram: NDArray[np.int64] | None = None
    channel_absmax: NDArray[np.float32] | None = None

    @property
    def absmax(self) -> float:
        """Largest magnitude seen."""
        return max(abs(self.low), abs(self.high))

    @property
    def reach(self) -> float:
        """Extent of the histogram on either side of zero."""
        return reach_of(self.absmax)


@dataclass(frozen=True)
class Statistics:
    """Statistics by value name; a value that never was seen is absent.

    ``used`` collects the names that were asked for, so that a variant carries only these.
    """

    tensors: Mapping[str, TensorStatistics] = field(default_factory=dict)
    used: set[str] = field(default_factory=set, compare=False, repr=False)

    def __getitem__(self, name: str) -> TensorStatistics:
        self.used.add(name)
        return self.tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def get(self, name: str | None) -> TensorStatistics | None:
        """The statistics of a value, or ``None`` if it was not calibrated."""
        return self[name] if name and name in self.tensors else None

    def beside(self, others: Mapping[str, TensorStatistics]) -> Statistics:
        """These and others; what was asked for of either counts for both."""
        return Statistics({**self.tensors, **others}, self.used)

    def used_only(self) -> Statistics:
        """The statistics that were asked for."""
        return Statistics({name: self.tensors[name] for name in sorted(self.used)})


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One tensor's statistics on the wire."""

    low: float
    high: float
    histogram: list[int] | None = None
    channel_absmax: list[float] | None = None


def encode(statistics: Statistics, names: Collection[str] | None = None) -> bytes:
    """Statistics as JSON: equal statistics give equal bytes.

    Args:
        statistics: What to store.
        names: The values to store, for instance those that a recipe used; all by default.
    """
    chosen = sorted(statistics.tensors if names is None else set(names) & set(statistics.tensors))
    return msgspec.json.encode({name: _entry(statistics[name]) for name in chosen})


def decode(data: bytes) -> Statistics:
    """The inverse of :func:`encode`.

    Raises:
        BundleError: The bytes are not statistics.
    """
    try:
        entries = msgspec.json.decode(data, type=dict[str, _Entry])
    except msgspec.DecodeError as error:
        raise BundleError(
            f"not calibration statistics: {error}", remedy="convert without --base"
        ) from None
    return Statistics({name: _tensor(entry) for name, entry in entries.items()})


def _entry(tensor: TensorStatistics) -> _Entry:
    return _Entry(
        low=tensor.low,
        high=tensor.high,
        histogram=None if tensor.histogram is None else tensor.histogram.tolist(),
        # The shortest decimals that give the same float32.
        channel_absmax=None
        if tensor.channel_absmax is None
        else [float(str(value)) for value in tensor.channel_absmax],
    )


def _tensor(entry: _Entry) -> TensorStatistics:
    return TensorStatistics(
        low=entry.low,
        high=entry.high,
        histogram=None if entry.histogram is None else np.asarray(entry.histogram, np.int64),
        channel_absmax=None
        if entry.channel_absmax is None
        else np.asarray(entry.channel_absmax, np.float32),
    )
