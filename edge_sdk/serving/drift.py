"""Whether two versions give different outputs: histograms of a cheap statistic, and their PSI.

Pure. What is counted is coarse on purpose: it costs microseconds per request and needs no
labels. Of an output with classes it is the class; of numbers their sign and magnitude; of
an answer in words its length, and how much it repeats itself.

The population stability index (Siddiqi, Credit Risk Scorecards, 2006) of two histograms is
``sum((p - q) * ln(p / q))``. By convention below 0.1 is no change and above 0.25 a large one.
Of two samples of the same distribution it is not zero but about ``(bins - 1) * (1/n + 1/m)``
(Yurdakul and Naranjo, Statistical properties of the population stability index, 2020); that
much is taken off, so that few requests do not look like drift.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_sdk.runtime.engine import Array

BINS = 32
LEAST = 50
"""Fewer observations on either side say nothing."""
MOST = 20_000  # then all counts are halved, so that what is older counts less
MOST_ROWS = 64  # of one request
OCTAVES = BINS // 4  # of magnitudes, around 1, per sign


class Histogram:
    """Counts of observations in :data:`BINS` bins. Safe to use from several threads.

    Args:
        counts: What was counted before, as :attr:`counts` gave it; of so many bins, or none.
    """

    def __init__(self, counts: Sequence[int] = ()) -> None:
        self._counts = list(counts) if len(counts) == BINS else [0] * BINS
        self._lock = threading.Lock()

    def add(self, bins: Iterable[int]) -> None:
        """Counts observations, given the bin of each."""
        with self._lock:
            for index in bins:
                self._counts[index] += 1
            if sum(self._counts) > MOST:
                self._counts = [count // 2 for count in self._counts]

    @property
    def counts(self) -> tuple[int, ...]:
        """Observations per bin."""
        with self._lock:
            return tuple(self._counts)


def psi(reference: Sequence[int], found: Sequence[int]) -> float | None:
    """How far two histograms are apart, beyond what chance explains.

    Args:
        reference: Observations per bin of the version before.
        found: Observations per bin of this one.

    Returns:
        0 or more; ``None`` where either has fewer than :data:`LEAST` observations.
    """
    n, m = sum(reference), sum(found)
    if min(n, m) < LEAST:
        return None
    pairs = [(one, other) for one, other in zip(reference, found, strict=True) if one or other]
    # Half an observation more in each bin, or an empty one would be infinitely far away.
    n_all, m_all = n + len(pairs) / 2, m + len(pairs) / 2
    index = 0.0
    for one, other in pairs:
        p, q = (one + 0.5) / n_all, (other + 0.5) / m_all
        index += (p - q) * math.log(p / q)
    return max(0.0, index - (len(pairs) - 1) * (1 / n + 1 / m))


def of_outputs(outputs: Mapping[str, Array]) -> Iterator[int]:
    """The bins of one call's outputs: of the first output that holds numbers, row by row."""
    for array in outputs.values():
        if array.dtype.kind in "fiub" and array.size:
            yield from _of_array(array)
            return


def of_answer(tokens: Sequence[int]) -> int:
    """The bin of one answer in words: its length by octave, and how varied its tokens are."""
    length = len(tokens)
    octave = min(BINS // 4 - 1, length.bit_length())
    if length < 2:
        return octave * 4
    shares = [count / length for count in Counter(tokens).values()]
    entropy = -sum(share * math.log(share) for share in shares) / math.log(length)
    return octave * 4 + min(3, int(entropy * 4))


def _of_array(array: Array) -> Iterator[int]:
    if array.dtype.kind != "f":
        for value in array.reshape(-1)[:MOST_ROWS].tolist():
            yield int(value) % BINS
    elif array.ndim and array.shape[-1] > 1:
        rows = array.reshape(-1, array.shape[-1])[:MOST_ROWS]
        for best in rows.argmax(axis=-1).tolist():
            yield best % BINS
    else:
        for value in array.reshape(-1)[:MOST_ROWS].tolist():
            yield _of_number(value)


def _of_number(value: float) -> int:
    """By sign and binary magnitude: ``±2**-8`` and less to ``±2**7`` and more; 0 and NaN first."""
    if not value or not math.isfinite(value):
        return 0
    magnitude = max(0, min(2 * OCTAVES - 1, math.frexp(value)[1] + OCTAVES))
    return magnitude + 2 * OCTAVES * (value < 0)
