"""What :meth:`edge_sdk.Model.generate` returns: text as it comes, and what it took."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from edge_sdk.runtime.generation.stats import Stats
from edge_sdk.runtime.generation.stream import FinishReason, Request
from edge_sdk.runtime.generation.turns import Turns

__all__ = ["Completion", "Stats"]


class Completion(Iterator[str]):
    """The answer to one prompt: an iterator of text pieces.

    Iterating drives the model, for this completion and all others that are running.
    One thread iterates; any thread may cancel. A completion that is closed, left by
    its ``with`` block or forgotten ends as cancelled.

    Args:
        scheduler: Runs the request.
        request: What to generate.
    """

    def __init__(self, scheduler: Turns, request: Request) -> None:
        self._scheduler = scheduler
        self._stream = scheduler.submit(request)
        self._shown: list[str] = []

    def __next__(self) -> str:
        """The next piece of text.

        Raises:
            EngineError: The engine failed.
        """
        while True:
            ended = self.ended  # before looking for text, which may come until then
            if self._stream.pieces:
                self._shown.append(self._stream.pieces.popleft())
                return self._shown[-1]
            if self._stream.error is not None:
                raise self._stream.error
            if ended:
                raise StopIteration
            self._scheduler.advance(self._stream)

    def __enter__(self) -> Completion:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def read(self) -> str:
        """Generates to the end; the whole text."""
        for _ in self:
            pass
        return self.text

    def take(self) -> str:
        """The text that has come since it was last read, without computing or waiting.

        Raises:
            EngineError: The engine failed, and all text before that was read.
        """
        pieces = []
        while self._stream.pieces:
            pieces.append(self._stream.pieces.popleft())
        if not pieces and self._stream.error is not None:
            raise self._stream.error
        self._shown += pieces
        return "".join(pieces)

    def cancel(self) -> None:
        """Ends the completion within a token; text that has come can still be read."""
        self._scheduler.cancel(self._stream)

    def close(self) -> None:
        """Ends the completion, and drops text that was not read."""
        self.cancel()
        self._stream.pieces.clear()

    @property
    def ended(self) -> bool:
        """Whether no more text comes, beside what was not read yet."""
        return self._stream.finished

    @property
    def text(self) -> str:
        """The text read so far."""
        return "".join(self._shown)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens drawn so far, without the one that ended the text."""
        return tuple(self._stream.tokens[len(self._stream.request.prompt) :])

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended: ``stop``, ``length`` or ``cancelled``; ``None`` while it runs."""
        return self._stream.finish_reason

    @property
    def stats(self) -> Stats:
        """What it has taken so far."""
        stream = self._stream
        first, last, drawn = stream.first, stream.last, stream.drawn
        pace = None
        if first is not None and last is not None and last > first and drawn > 1:
            pace = (drawn - 1) / (last - first)
        return Stats(
            prompt_tokens=stream.request.size,
            cached_tokens=stream.cached,
            new_tokens=drawn,
            ttft_ms=None if first is None else (first - stream.submitted) * 1e3,
            tokens_per_second=pace,
        )
