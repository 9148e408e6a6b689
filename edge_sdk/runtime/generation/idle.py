"""Something that is done once nothing has happened for a while."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from threading import Timer

SECONDS = 0.5  # longer than lies between the requests of a busy program


class Idle:
    """A moment of idleness, waited for in a thread that lasts as long.

    Args:
        act: A method; its object is not kept alive. It runs in the waiting thread.
    """

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = weakref.WeakMethod(act)
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Nothing is to do from now on."""
        self.end()
        self._timer = Timer(SECONDS, _call, (self._act,))
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """There is something to do again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _call(act: weakref.WeakMethod[Callable[[], None]]) -> None:
    method = act()
    if method is not None:
        method()
