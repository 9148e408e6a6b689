"""Values that are made in a thread of their own while others work, or when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Lock, Thread
from typing import Generic, TypeVar

from edge_sdk.errors import EdgeSdkError

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """A value that is made once. Safe to use from several threads.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        self._made: Made | None = None
        self._lock = Lock()

    def start(self) -> None:
        """Begins to make it; what :meth:`get` would raise is raised there."""
        Thread(target=self._try).start()

    def get(self) -> Made:
        """The value, once it is made; raises what making it does."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _try(self) -> None:
        with suppress(EdgeSdkError, ImportError):
            self.get()
