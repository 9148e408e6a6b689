"""From activation statistics to the range that quantization will represent.

Every method returns an interval around zero; they differ in how much of a
long tail they give up for finer steps in the middle.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from converters.calibration.statistics import HISTOGRAM_BINS, TensorStatistics

Method = Literal["minmax", "entropy", "percentile", "mse"]
Counts = NDArray[np.float64]

HALF = HISTOGRAM_BINS // 2
LEVELS = 128
# Every 16th of 2048 thresholds: finer ones move the range by less than one percent.
STRIDE = 16


def activation_range(
    statistics: TensorStatistics, method: Method = "minmax", percentile: float = 99.99
) -> tuple[float, float]:
    """The interval of values to represent; it contains zero.

    Args:
        statistics: What calibration saw.
        method: ``minmax`` keeps everything; ``percentile`` cuts the rarest values;
            ``entropy`` minimises the information lost (Migacz, "8-bit inference with
            TensorRT", GTC 2017); ``mse`` minimises the expected squared error.
        percentile: Share of values to keep, in percent, for ``percentile``.

    Returns:
        Lowest and highest value; ``(0, 0)`` for a tensor that was always zero.
    """
    low, high = min(statistics.low, 0.0), max(statistics.high, 0.0)
    histogram = statistics.histogram
    if method == "minmax" or histogram is None or low == high:
        return low, high
    if method == "percentile":
        kept_low, kept_high = _percentile(histogram, statistics.reach, percentile)
        return max(low, kept_low), min(high, kept_high)
    counts = (histogram[HALF:] + histogram[:HALF][::-1]).astype(np.float64)
    used = int(np.flatnonzero(counts)[-1]) + 1
    bins = _entropy(counts[:used]) if method == "entropy" else _mse(counts[:used])
    threshold = bins * statistics.reach / HALF
    return max(low, -threshold), min(high, threshold)


def _percentile(
    histogram: NDArray[np.int64], reach: float, percentile: float
) -> tuple[float, float]:
    """Edges of the shortest run of bins that leaves out half the rest on either side."""
    cumulative = np.cumsum(histogram)
    total = int(cumulative[-1])
    outside = total * (1 - percentile / 100) / 2
    first = int(np.searchsorted(cumulative, outside, side="right"))
    last = int(np.searchsorted(cumulative, total - outside, side="left"))
    width = reach / HALF
    return min((first - HALF) * width, 0.0), max((last + 1 - HALF) * width, 0.0)


def _entropy(counts: Counts) -> int:
    """The number of bins whose 128-level version has the least divergence from all counts."""
    candidates = list(range(LEVELS, len(counts), STRIDE))
    if not candidates:
        return len(counts)
    candidates.append(len(counts))
    divergence = [_divergence(counts, bins) for bins in candidates]
    return candidates[int(np.argmin(divergence))]


def _divergence(counts: Counts, bins: int) -> float:
    """Kullback-Leibler divergence of the clipped counts from their quantized version."""
    kept = counts[:bins]
    reference = kept.copy()
    reference[-1] += counts[bins:].sum()
    starts = np.arange(LEVELS) * bins // LEVELS
    filled = kept > 0
    sums = np.add.reduceat(kept, starts)
    occupied = np.add.reduceat(filled.astype(np.float64), starts)
    means = np.divide(sums, occupied, out=np.zeros(LEVELS), where=occupied > 0)
    quantized = np.repeat(means, np.diff(np.append(starts, bins))) * filled
    # The last bin may hold clipped values alone: one count stands for the missing level.
    quantized[-1] = quantized[-1] or 1.0
    seen = reference > 0
    p, q = reference[seen] / reference.sum(), quantized[seen] / quantized.sum()
    return float(np.sum(p * np.log(p / q)))


def _mse(counts: Counts) -> int:
    """The number of bins that minimises rounding error inside plus clipping error outside."""
    centres = np.arange(len(counts)) + 0.5
    candidates = np.unique(np.append(np.arange(LEVELS, len(counts), STRIDE), len(counts)))
    errors = []
    for bins in candidates:
        clipped = np.sum(counts[bins:] * (centres[bins:] - bins) ** 2)
        rounded = np.sum(counts[:bins]) * (bins / LEVELS) ** 2 / 12
        errors.append(clipped + rounded)
    return int(candidates[int(np.argmin(errors))])
