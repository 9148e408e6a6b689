"""Computes answers in words for many callers at once, in one thread per model.

Requests share the model's batch: a step draws a token for each. Their readers are
coroutines of an event loop and take no thread while they wait.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING

from edge_sdk.errors import EdgeSdkError, EngineError

if TYPE_CHECKING:
    from edge_sdk.runtime.generation.completion import Completion
    from edge_sdk.runtime.model import Model


class _Reader:
    """A coroutine that waits for text."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.news = asyncio.Event()
        self.error: EdgeSdkError | None = None

    def wake(self) -> None:
        with suppress(RuntimeError):  # its loop was closed
            self.loop.call_soon_threadsafe(self.news.set)


class Driver:
    """Steps one dialogue model while somebody waits for its text.

    Args:
        model: A dialogue model, which nobody else steps.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._readers: set[_Reader] = set()
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._closing = False
        self._thread = threading.Thread(
            target=self._drive, name=f"{model.record.name} steps", daemon=True
        )
        self._thread.start()

    async def pieces(self, completion: Completion) -> AsyncIterator[str]:
        """The text of a completion as it comes, without computing in this thread.

        Raises:
            EngineError: The engine failed.
        """
        reader = _Reader()
        with self._lock:
            self._readers.add(reader)
        try:
            self._work.set()
            while True:
                reader.news.clear()
                ended = completion.ended  # before looking for text, which may come until then
                if text := completion.take():
                    yield text
                elif ended:
                    return
                elif reader.error is not None:
                    raise reader.error
                else:
                    await reader.news.wait()
        finally:
            with self._lock:
                self._readers.discard(reader)

    def close(self) -> None:
        """Ends the thread, after the step that it is in."""
        self._closing = True
        self._work.set()
        self._thread.join()

    def _drive(self) -> None:
        while not self._closing:
            self._work.wait()
            self._work.clear()
            more = True
            while more and not self._closing:
                more = self._step()

    def _step(self) -> bool:
        """One step; its readers learn of it, and of what nobody foresaw."""
        more, error = False, None
        try:
            more = self._model.step()
        except Exception as unexpected:  # noqa: BLE001  the thread's edge: its readers report it
            error = EngineError(f"generation failed: {type(unexpected).__name__}: {unexpected}")
        with self._lock:
            for reader in self._readers:
                reader.error = reader.error or error
                reader.wake()
        return more
