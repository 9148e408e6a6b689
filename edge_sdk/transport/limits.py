"""How fast a transfer may be, and when one that broke off is tried again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Retry:
    """When to try again what broke off.

    Attributes:
        attempts: Tries in a row without a byte of progress before giving up.
        shortest: Delay in seconds; jittered by :class:`~edge_sdk.transport.backoff.Backoff`.
        longest: Seconds.
    """

    attempts: int = 6
    shortest: float = 0.5
    longest: float = 30.0


class RateLimit:
    """Bytes per second that several threads share: a token bucket.

    Args:
        rate: Bytes per second; ``None`` for no limit.
        clock: Seconds, monotonic.
    """

    BURST = 0.5  # seconds' worth of bytes that may come at once after a pause

    def __init__(self, rate: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._paid = clock() - self.BURST  # when everything taken so far is paid for

    def debt(self, count: int) -> float:
        """Takes ``count`` bytes; the seconds to wait before the next are taken."""
        if not self._rate:
            return 0.0
        with self._lock:
            now = self._clock()
            self._paid = max(self._paid, now - self.BURST) + count / self._rate
            return max(0.0, self._paid - now)
