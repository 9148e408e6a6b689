"""What fetching and pushing have in common: progress, rate limit, trying again, stopping."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from edge_sdk.bundle.record import Blob
from edge_sdk.errors import TransferError
from edge_sdk.transport.backoff import Backoff

_LOG = logging.getLogger(__name__)
ATTENTION = 0.2
"""Seconds within which a waiting transfer notices that it is not wanted any more."""
T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """How far a transfer is; all counts are of what was missing when it began.

    Attributes:
        bytes_done: Bytes that the other side, or a partial file here, has.
        bytes_total: Bytes that were missing.
        blobs_done: Blobs that are complete and in their place.
        blobs_total: Blobs that were missing.
    """

    bytes_done: int = 0
    bytes_total: int = 0
    blobs_done: int = 0
    blobs_total: int = 0


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


class Transfer:
    """One transfer at work in several threads; stops them all when its block is left.

    Args:
        what: Names it in errors.
        rate_limit: Bytes per second.
        retry: When to try again.
        progress: Told of every piece, by one thread at a time.
        cancelled: Asked at every piece.

    Attributes:
        travelled: Bytes that went over the wire.
    """

    def __init__(
        self,
        what: str,
        *,
        rate_limit: float | None = None,
        retry: Retry | None = None,
        progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.travelled = 0
        self._what = what
        self._limit = RateLimit(rate_limit)
        self._retry = retry or Retry()
        self._tell = progress or (lambda _: None)
        self._cancelled = cancelled
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._progress = Progress()

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends what other threads are at, soon."""
        self._stop.set()

    def expect(self, blobs: Iterable[Blob]) -> None:
        """Says what is missing."""
        sizes = [blob.size for blob in blobs]
        self._update(Progress(bytes_total=sum(sizes), blobs_total=len(sizes)))

    def done(self, count: int, blobs: int = 0) -> None:
        """Counts bytes (back again where negative) and whole blobs as done."""
        with self._lock:
            now = self._progress
            self._progress = replace(
                now, bytes_done=now.bytes_done + count, blobs_done=now.blobs_done + blobs
            )
            self._tell(self._progress)

    def moved(self, count: int) -> None:
        """Counts bytes that travelled, and waits for as long as the rate limit says."""
        with self._lock:
            self.travelled += count
        self.pause(self._limit.debt(count))

    def persist(self, work: Callable[[], T], measure: Callable[[], int] = lambda: 0) -> T:
        """Does what may break off again and again, as long as there is progress.

        Args:
            work: What to do; a passing :class:`TransferError` is tried again.
            measure: How far it is.

        Raises:
            TransferError: It is refused, or makes no progress.
        """
        failures, backoff = 0, Backoff(self._retry.shortest, self._retry.longest)
        while True:
            self.check()
            before = measure()
            try:
                return work()
            except TransferError as error:
                self.check()
                failures += 1
                if measure() > before:
                    failures, backoff = 0, Backoff(self._retry.shortest, self._retry.longest)
                if not error.passing or failures >= self._retry.attempts:
                    raise
                delay = backoff.delay()
                _LOG.warning("%s: %s; trying again in %.1f s", error.where, error.message, delay)
                self.pause(delay)

    def pause(self, seconds: float) -> None:
        """Waits, as long as the transfer is wanted."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            self._stop.wait(min(left, ATTENTION))
        self.check()

    def check(self) -> None:
        """Ends the transfer where it is not wanted any more.

        Raises:
            TransferError: It is not.
        """
        if self._stop.is_set() or self._cancelled():
            raise TransferError("stopped before it was done", where=self._what)

    def _update(self, progress: Progress) -> None:
        with self._lock:
            self._progress = progress
            self._tell(progress)
