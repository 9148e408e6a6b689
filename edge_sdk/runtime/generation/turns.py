"""Several streams computed in turn, without a thread of their own.

Whoever waits for a stream drives all of them: :meth:`Turns.advance` runs a step, or waits
for the thread that is running one. A server may call :meth:`Turns.step` from a thread of
its own instead. Once nothing is asked for a while, memory that only answers need goes back
to the kernel, on nobody's time. What a step computes is up to the kind of model.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edge_sdk.errors import EdgeSdkError
from edge_sdk.runtime import process
from edge_sdk.runtime.generation.idle import Idle
from edge_sdk.runtime.generation.stream import Request, Stream

if TYPE_CHECKING:
    from edge_sdk.runtime.generation.decoder import Logits


class Turns(ABC):
    """Runs streams, one step after the other. Safe to use from several threads.

    The step in progress alone touches what streams are computed with; the lock guards the
    streams, and is never held while a graph runs.
    """

    def __init__(self) -> None:
        self._waiting: deque[Stream] = deque()
        self._active: list[Stream] = []
        self._changed = threading.Condition()
        self._stepping = False
        self._idle = Idle(self._rest)
        self._rested = False

    def submit(self, request: Request) -> Stream:
        """Queues a request; it begins with the next step in which there is room for it."""
        stream = Stream(request)
        with self._changed:
            self._waiting.append(stream)
        return stream

    def cancel(self, stream: Stream) -> None:
        """Ends a stream; a token that is being computed for it is dropped."""
        with self._changed:
            stream.finish("cancelled")

    def close(self) -> None:
        """Ends all streams, after the step that is running, and lets go of all memory."""
        with self._changed:
            self._idle.end()
            self._changed.wait_for(lambda: not self._stepping)
            for stream in (*self._active, *self._waiting):
                stream.finish("cancelled")
            self._active.clear()
            self._waiting.clear()
            self._release()

    def advance(self, stream: Stream) -> None:
        """Returns once the stream has new text or has ended, or one more step was run."""
        with self._changed:
            while self._stepping and not (stream.pieces or stream.finished):
                self._changed.wait()
            if stream.pieces or stream.finished:
                return
            self._stepping = True
        self._run_step()

    def step(self) -> bool:
        """Runs one step, after the one that is running.

        Returns:
            Whether streams remain that need more steps.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._stepping)
            self._stepping = True
        self._run_step()
        with self._changed:
            return bool(self._active or self._waiting)

    @abstractmethod
    def _compute(self) -> None:
        """One step. It may be interrupted anywhere (Ctrl-C), and the next one goes on."""

    @abstractmethod
    def _release(self) -> None:
        """Lets go of what streams are computed with."""

    def _give_back(self) -> None:
        """Gives memory back that is of no use while nothing is computed."""
        if not self._rested:  # opening and a first answer run code that nothing needs afterwards
            process.drop_code()
            self._rested = True
        process.trim()

    def _rest(self) -> None:
        """Gives memory back in the place of a step, unless there is something to do."""
        with self._changed:
            if self._stepping or self._active or self._waiting:
                return
            self._stepping = True
        try:
            self._give_back()
        finally:
            with self._changed:
                self._stepping = False
                self._changed.notify_all()

    def _run_step(self) -> None:
        try:
            with self._changed:
                self._idle.end()
                self._retire()
            self._compute()
        finally:
            with self._changed:
                self._retire()
                self._stepping = False
                if not (self._active or self._waiting):
                    self._idle.begin()
                self._changed.notify_all()

    def _next(self) -> Stream | None:
        """The stream that waits for longest; those that have ended wait no more."""
        with self._changed:
            while self._waiting and self._waiting[0].finished:
                self._waiting.popleft()
            return self._waiting[0] if self._waiting else None

    def _activate(self, stream: Stream) -> None:
        """Takes a stream that waits among those that run."""
        with self._changed:
            self._active.append(stream)
            self._waiting.remove(stream)

    def _retire(self) -> None:
        """Drops the streams that have ended."""
        self._active = [stream for stream in self._active if not stream.finished]

    @contextmanager
    def _failing(self, streams: list[Stream]) -> Iterator[None]:
        """What fails within ends these streams; whoever reads them gets the error."""
        try:
            yield
        except EdgeSdkError as error:
            with self._changed:
                for stream in streams:
                    stream.fail(error)

    def _draw(self, stream: Stream, logits: Logits) -> None:
        """Draws a stream's next token; what fails here ends this stream alone."""
        with self._failing([stream]):
            token = stream.request.sampler.next(logits)
            with self._changed:
                if not stream.finished:
                    stream.accept(token)
