"""A session that serves plainly until its graph is compiled, and compiled from then on."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING

import msgspec

from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import EdgeSdkError, EngineError
from edge_sdk.runtime.compiled.place import History, Place
from edge_sdk.runtime.compiled.request import REFUSED, Request
from edge_sdk.runtime.engine import Session

if TYPE_CHECKING:
    import subprocess

    from edge_sdk.runtime.engine import Feeds, Outputs

log = logging.getLogger(__name__)

Open = Callable[[], Session]

_ONE_AT_A_TIME = threading.Lock()


class SwitchingSession:
    """A session that changes once, between two calls; calls under way end where they began.

    Args:
        plain: Serves until then, and what the compiled one refuses.
        name: What is compiled, for notes.

    Attributes:
        settled: Set once nothing goes on in the background.
    """

    def __init__(self, plain: Open, name: str) -> None:
        self._open_plain = plain
        self._name = name
        self._plain: Session | None = None
        self._compiled: Session | None = None
        self._said: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False
        self.settled = threading.Event()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Graph inputs in order."""
        return self._current.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Graph outputs in order."""
        return self._current.outputs

    @property
    def notes(self) -> tuple[str, ...]:
        """What is being compiled, or why it is not; and the notes of the session that serves."""
        return (*self._said, *self._current.notes)

    def run(self, feeds: Feeds) -> Outputs:
        """Runs the graph once; what the compiled session refuses, the plain one tries.

        Raises:
            EngineError: That one failed too.
        """
        plain, compiled = self._plain, self._compiled  # in this order: see take
        if compiled is None:
            return (plain or self._fallback).run(feeds)
        try:
            return compiled.run(feeds)
        except EngineError as error:  # a shape that it was not compiled for, memory
            outputs = self._fallback.run(feeds)
            self._say(f"{self._name} refused a call, which ran without it: {_line(error)}")
            return outputs

    def open_plain(self) -> None:
        """Opens the session that serves without what is compiled.

        Raises:
            EngineError: The engine refused the graph.
        """
        self._fallback  # noqa: B018

    def take(self, compiled: Session) -> None:
        """Serves by this session from now on; the plain one's memory is free after its calls."""
        self._compiled = compiled
        # After that: who looks for both in the other order has one, and opens none anew.
        self._plain = None
        self._say("")
        self.settled.set()

    def compile_apart(self, request: Request, place: Place, opened: Open) -> None:
        """Compiles in a process of its own, and takes the result; returns at once.

        Args:
            request: What to compile.
            place: Where the result will be.
            opened: Opens and tests the result.
        """
        now = time.time()
        begun, until = (
            time.strftime("%H:%M", time.localtime(moment))
            for moment in (now, now + request.budget_s)
        )
        self._say(
            f"{self._name} is being built since {begun}, until {until} at most; "
            "served without it meanwhile"
        )
        threading.Thread(
            target=self._compile, args=(request, place, opened), name="compile", daemon=True
        ).start()

    def give_up(self, reason: str) -> None:
        """Stays with the plain session."""
        self._say(f"served without {self._name}: {reason}")
        self.settled.set()

    def close(self) -> None:
        """Ends the process that compiles, if there is one."""
        with self._lock:
            self._closed = True
            if self._child is not None and self._child.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(self._child.pid, signal.SIGKILL)

    @property
    def _current(self) -> Session:
        plain = self._plain
        return self._compiled or plain or self._fallback

    @property
    def _fallback(self) -> Session:
        session = self._plain
        if session is None:
            with self._lock:
                session = self._plain = self._plain or self._open_plain()
        return session

    def _say(self, note: str) -> None:
        self._said = (note,) if note else ()
        if note:
            log.info("%s", note)

    def _compile(self, request: Request, place: Place, opened: Open) -> None:
        try:
            with _ONE_AT_A_TIME:
                place.note(History(attempts=place.history.attempts + 1))
                problem = self._run(request, place)
            if self._closed:
                place.note(History(attempts=max(0, place.history.attempts - 1)))
                return
            if not problem:
                self.take(opened())
                return
        except (EdgeSdkError, OSError) as error:
            problem = _line(error)
        with suppress(EdgeSdkError):
            place.note(History(refused=problem))
        place.remove()
        self.give_up(problem)

    def _run(self, request: Request, place: Place) -> str:
        """Runs the process to its end; what went wrong, or nothing."""
        import subprocess
        import tempfile

        with tempfile.TemporaryFile() as said:
            with self._lock:
                if self._closed:
                    return "closed"
                self._child = subprocess.Popen(
                    [sys.executable, "-m", "edge_sdk.runtime.compiled.child"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    start_new_session=True,
                )
            with suppress(BrokenPipeError):
                self._child.communicate(msgspec.json.encode(request))
            code = self._child.wait()
            if code == REFUSED:
                return place.history.refused
            return _ending(code, request.budget_s, said) if code else ""


def _ending(code: int, budget_s: float, said: IO[bytes]) -> str:
    if code == -signal.SIGALRM:
        return f"compiling took longer than {budget_s:g} s"
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return ": ".join((f"the process that compiled {how}", *lines[-1:]))


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
