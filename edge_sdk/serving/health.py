"""How a version does: latency and errors of its last requests, in constant memory. Pure.

Latencies are counted in buckets whose bounds grow by a constant factor, so that any
quantile is known to within :data:`ERROR` whatever the scale (the idea of HdrHistogram
and DDSketch). A window is a ring of slots, each a share of its length; the oldest is
emptied when its place is needed.
"""

from __future__ import annotations

import math
import threading
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

PER_OCTAVE = 8
SMALLEST_MS = 0.01
BUCKETS = 27 * PER_OCTAVE  # up to 22 minutes
ERROR = 2 ** (0.5 / PER_OCTAVE) - 1
"""Largest relative error of a quantile: half a bucket, 4.4 %."""
SLOTS = 10


@dataclass(frozen=True)
class Figures:
    """What a window holds.

    Attributes:
        requests: Number of requests, those that failed included.
        errors: Those that failed through no fault of the caller.
        p50_ms: Median latency of those that did not; ``None`` where there are none.
        p95_ms: Their 95th percentile.
        window_s: Seconds that the figures are about.
    """

    requests: int = 0
    errors: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    window_s: float = 0.0


@dataclass
class Totals:
    """Counts since the beginning, which only grow.

    Attributes:
        errors: Requests that failed through no fault of the caller.
        latency_ms: Sum of the latencies of those that did not.
        buckets: Number of latencies in each bucket; see :func:`upper_ms`.
    """

    errors: int = 0
    latency_ms: float = 0.0
    buckets: Sequence[int] = ()

    @property
    def answered(self) -> int:
        """Requests that did not fail."""
        return sum(self.buckets)


def _empty() -> array[int]:
    return array("Q", bytes(8 * BUCKETS))


@dataclass
class _Slot:
    number: int = -1
    errors: int = 0
    buckets: array[int] = field(default_factory=_empty)


class Window:
    """Latency and errors of the last seconds. Safe to use from several threads.

    Args:
        seconds: Length of the window.
        begun: When it begins, in seconds of the clock that all calls use.
    """

    def __init__(self, seconds: float, begun: float) -> None:
        self._seconds = seconds
        self._begun = begun
        self._slots = [_Slot() for _ in range(SLOTS)]
        self._errors = 0
        self._latency_ms = 0.0
        self._buckets = _empty()
        self._lock = threading.Lock()

    def answered(self, now: float, latency_ms: float) -> None:
        """Counts a request that went well."""
        bucket = bucket_of(latency_ms)
        with self._lock:
            self._slot(now).buckets[bucket] += 1
            self._buckets[bucket] += 1
            self._latency_ms += latency_ms

    def failed(self, now: float) -> None:
        """Counts a request that failed through no fault of the caller."""
        with self._lock:
            self._slot(now).errors += 1
            self._errors += 1

    def snapshot(self, now: float) -> Figures:
        """The figures of the window that ends now."""
        with self._lock:
            newest = self._number(now)
            slots = [slot for slot in self._slots if newest - SLOTS < slot.number <= newest]
            errors = sum(slot.errors for slot in slots)
            buckets = [
                sum(counts) for counts in zip(*(slot.buckets for slot in slots), strict=True)
            ]
        answered = sum(buckets)
        return Figures(
            requests=answered + errors,
            errors=errors,
            p50_ms=quantile(buckets, 0.5),
            p95_ms=quantile(buckets, 0.95),
            window_s=min(self._seconds, max(0.0, now - self._begun)),
        )

    def totals(self) -> Totals:
        """Counts since the beginning."""
        with self._lock:
            return Totals(self._errors, self._latency_ms, tuple(self._buckets))

    def _number(self, now: float) -> int:
        return max(0, math.floor((now - self._begun) * SLOTS / self._seconds))

    def _slot(self, now: float) -> _Slot:
        """The slot that is being filled, emptied of what is older than the window."""
        number = self._number(now)
        slot = self._slots[number % SLOTS]
        if slot.number < number:
            slot.number, slot.errors, slot.buckets = number, 0, _empty()
        return slot


def bucket_of(latency_ms: float) -> int:
    """The bucket that a latency is counted in."""
    if latency_ms <= SMALLEST_MS:
        return 0
    return min(BUCKETS - 1, math.floor(math.log2(latency_ms / SMALLEST_MS) * PER_OCTAVE))


def upper_ms(bucket: int) -> float:
    """The upper bound of a bucket, in milliseconds."""
    return SMALLEST_MS * math.pow(2, (bucket + 1) / PER_OCTAVE)


def quantile(buckets: Iterable[int], share: float) -> float | None:
    """The latency that this share of all does not exceed, in milliseconds; ``None`` of none.

    Args:
        buckets: Number of latencies in each bucket.
        share: 0 to 1.
    """
    counts = list(buckets)
    rank = share * sum(counts)
    if not rank:
        return None
    bucket = next(i for i, below in enumerate(accumulate(counts)) if below >= rank)
    return upper_ms(bucket) / (1 + ERROR)  # its middle
