"""How many threads to compute with while other programs keep cores busy (Linux).

A thread that waits for a busy core holds up all the others at the end of every
operation: with a neighbour on one of two cores, two threads are slower than one;
with a neighbour of lower priority they are not. So the kernel's figures say when
to try fewer, and the time of a token says what to keep.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
# Seconds between two looks: the kernel counts in hundredths.
INTERVAL = 0.5
# After a longer pause the past says nothing of now.
STALE = 3.0
# Tokens that each number of threads is tried for, and tokens until it is tried again.
TRIAL = 5
HOLD = 100


@dataclass(frozen=True)
class Sample:
    """Processor time until a moment, in seconds.

    Attributes:
        moment: The moment, by the monotonic clock.
        everybody: Spent by all programs on the cores this process may use.
        own: Spent by this process.
    """

    moment: float
    everybody: float
    own: float


def free_cores(before: Sample, after: Sample, cores: int) -> float:
    """Cores that other programs left between two samples."""
    others = (after.everybody - before.everybody) - (after.own - before.own)
    return cores - max(0.0, others / (after.moment - before.moment))


def take_sample() -> Sample | None:
    """Processor time until now; ``None`` where the kernel does not say."""
    wanted = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    try:
        for line in STAT.read_text().splitlines():
            name, *fields = line.split()
            if name in wanted:
                user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
                ticks += user + nice + system + irq + softirq + steal
    except (OSError, ValueError):
        return None
    everybody = ticks / os.sysconf("SC_CLK_TCK")
    return Sample(time.perf_counter(), everybody, time.process_time())


class Cores:
    """The number of threads to use. For one thread at a time.

    Args:
        most: Threads to use on an idle machine.
        sample: Where the kernel's figures come from.
    """

    def __init__(self, most: int, sample: Callable[[], Sample | None] = take_sample) -> None:
        self._most = most
        self._fewer = most  # as many as there are free cores
        self._took: dict[int, list[float]] = {}
        self._tokens = 0  # since the last trial began
        self._take = sample
        self._last = sample() if most > 1 else None

    def threads(self) -> int:
        """Threads for the next call."""
        self._look()
        if self._fewer == self._most:
            return self._most
        for count in (self._fewer, self._most):
            if len(self._took.get(count, ())) < TRIAL:
                return count
        return min(self._took, key=lambda count: sorted(self._took[count])[TRIAL // 2])

    def took(self, threads: int, seconds: float) -> None:
        """Notes what a token took with so many threads."""
        self._tokens += 1
        if self._tokens > HOLD:
            self._forget()
        times = self._took.setdefault(threads, [])
        if len(times) < TRIAL:
            times.append(seconds)

    def _look(self) -> None:
        """Reads the kernel's figures, every half second."""
        if self._last is None or time.perf_counter() < self._last.moment + INTERVAL:
            return
        now = self._take()
        if now is not None and now.moment < self._last.moment + STALE:
            free = free_cores(self._last, now, len(os.sched_getaffinity(0)))
            fewer = max(1, min(self._most, int(free + 0.5)))
            if fewer != self._fewer:
                self._fewer = fewer
                self._forget()
        self._last = now

    def _forget(self) -> None:
        self._took, self._tokens = {}, 0
