"""One version of a model while it is served: the loaded model, who uses it, and how it does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import BundleError, BusyError, EdgeSdkError, EngineError, NotServedError
from edge_sdk.serving import drift
from edge_sdk.serving.drift import Histogram
from edge_sdk.serving.health import Figures, Window

if TYPE_CHECKING:
    from edge_sdk.runtime.engine import Array
    from edge_sdk.runtime.generation.completion import Completion
    from edge_sdk.runtime.model import Model
    from edge_sdk.serving.driver import Driver

MOST_USES = 64
"""Requests that one version may have at once, the waiting ones included."""


class Served:
    """A loaded version. Safe to use from several threads.

    Whoever uses it holds it (:meth:`edge_sdk.serving.router.Router.use` does that); once it
    is retired, the last one to let go closes its model.

    Args:
        model: The loaded model; closed with this.
        digest: Of its bundle's image index.
        window_s: Seconds that its figures are about.
        clock: The time in seconds, from any beginning.

    Attributes:
        model: The loaded model.
        version: The bundle's version.
        digest: Of its bundle's image index.
        health: Latency and errors of its last requests.
        outputs: What it has answered, for drift.
        tokens: Number of tokens that it has drawn.
        since: When it was loaded, in seconds since the epoch.
        executor: The thread in which its calls run, one after the other, as its memory plan
            foresees.
    """

    def __init__(
        self,
        model: Model,
        digest: str,
        *,
        window_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.version = model.record.version
        self.digest = digest
        self.health = Window(window_s, clock())
        self.outputs = Histogram()
        self.tokens = 0
        self.since = time.time()
        self.executor = ThreadPoolExecutor(1, thread_name_prefix=f"{model.record.name} calls")
        self._reference: Histogram | None = None
        self._clock = clock
        self._lock = threading.Lock()
        self._uses = 0
        self._retired = False
        self._closed = threading.Event()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Runs the model once, and counts how that went.

        Raises:
            EdgeSdkError: As :meth:`edge_sdk.Model.run`.
        """
        with self.counted():
            outputs = self.model.run(inputs)
        self.outputs.add(drift.of_outputs(outputs))
        return outputs

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts what happens within as one request."""
        begun = self._clock()
        try:
            yield
        except Exception as error:
            self.failed(error)
            raise
        now = self._clock()
        self.health.answered(now, (now - begun) * 1e3)

    def generated(self, completion: Completion) -> None:
        """Counts an answer in words as one request, unless it was cancelled."""
        stats = completion.stats
        with self._lock:
            self.tokens += stats.new_tokens
        if completion.finish_reason in ("stop", "length") and stats.ttft_ms is not None:
            self.health.answered(self._clock(), stats.ttft_ms)
            self.outputs.add([drift.of_answer(completion.tokens)])

    def failed(self, error: Exception) -> None:
        """Counts a request that failed, unless the caller was wrong."""
        theirs = isinstance(error, EdgeSdkError) and not isinstance(
            error, EngineError | BundleError
        )
        if not theirs:
            self.health.failed(self._clock())

    def figures(self) -> Figures:
        """How it did over the last window."""
        return self.health.snapshot(self._clock())

    @property
    def drift(self) -> float | None:
        """Population stability index of its outputs against what it is compared with.

        ``None`` without a reference, or before there are enough requests.
        """
        if self._reference is None:
            return None
        return drift.psi(self._reference.counts, self.outputs.counts)

    def compare_with(self, outputs: Histogram) -> None:
        """Makes what another version has answered the reference for :attr:`drift`."""
        self._reference = outputs

    @cached_property
    def driver(self) -> Driver:
        """Computes its answers in words, in a thread of its own."""
        from edge_sdk.serving.driver import Driver

        return Driver(self.model)

    @property
    def uses(self) -> int:
        """Number of requests that it has at the moment."""
        return self._uses

    def hold(self) -> None:
        """Keeps it open until :meth:`let_go`.

        Raises:
            BusyError: It has :data:`MOST_USES` requests.
            NotServedError: It was retired.
        """
        with self._lock:
            if self._retired:
                raise NotServedError("this version is not served any more", where=self.name)
            if self._uses >= MOST_USES:
                raise BusyError(
                    f"has {self._uses} requests to answer already",
                    where=self.name,
                    remedy="try again later",
                )
            self._uses += 1

    def let_go(self) -> None:
        """Ends a :meth:`hold`."""
        with self._lock:
            self._uses -= 1
            last = self._retired and not self._uses
        if last:
            self._close()

    def retire(self) -> None:
        """Closes it as soon as nobody uses it."""
        with self._lock:
            first, self._retired = not self._retired, True
            last = first and not self._uses
        if last:
            self._close()

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Waits until it was retired, nobody uses it, and its memory is free; whether it is."""
        return self._closed.wait(timeout)

    @property
    def name(self) -> str:
        """Name and version of the model, for messages."""
        return f"{self.model.record.name}:{self.version}"

    def _close(self) -> None:
        # Not in the caller's thread, which may be the one that answers everybody.
        threading.Thread(target=self._free, name=f"closing {self.name}").start()

    def _free(self) -> None:
        if "driver" in self.__dict__:
            self.driver.close()
        self.executor.shutdown()
        self.model.close()
        self._closed.set()
