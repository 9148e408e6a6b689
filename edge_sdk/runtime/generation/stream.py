"""One sequence that is being generated: what was asked for, and how far it is."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import EdgeSdkError

FinishReason = Literal["stop", "length", "cancelled"]


class Draws(Protocol):
    """Chooses tokens (:class:`edge_sdk.runtime.generation.sampling.Sampler`)."""

    def next(self, logits: NDArray[np.float32]) -> int:
        """The next token, from logits ``[vocab]``."""


class Shows(Protocol):
    """Makes text of tokens (:class:`edge_sdk.runtime.generation.text_stream.TextStream`)."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""

    def push(self, token: int) -> str:
        """What can be shown after this token."""

    def flush(self) -> str:
        """What was kept back, when no more tokens come."""


@dataclass(frozen=True)
class Request:
    """What to generate.

    Attributes:
        prompt: Tokens to begin with; at least one.
        sampler: Chooses the tokens.
        text: Makes text of them.
        limit: Most tokens to draw.
        stop_tokens: Tokens that end the text and are no part of it.
        adapter: Adapter to compute with; the bare model by default.
    """

    prompt: tuple[int, ...]
    sampler: Draws
    text: Shows
    limit: int
    stop_tokens: frozenset[int] = frozenset()
    adapter: str | None = None

    @property
    def size(self) -> int:
        """Tokens that are read."""
        return len(self.prompt)


class Stream:
    """The state of one sequence. Its scheduler's lock guards it.

    Attributes:
        request: What was asked for.
        tokens: The prompt and what was drawn since.
        pieces: Text that nobody has fetched yet.
        finish_reason: Why it ended; ``None`` while it runs.
        error: What ended it instead.
        row: Its row of the KV cache, once it has one.
        cached: Tokens of the prompt that need not be computed.
        submitted: When it was asked for, by the monotonic clock, in seconds.
        first: When the first token came.
        last: When the last token came.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.tokens = list(request.prompt)
        self.pieces: deque[str] = deque()
        self.finish_reason: FinishReason | None = None
        self.error: EdgeSdkError | None = None
        self.row = -1
        self.cached = 0
        self.submitted = time.perf_counter()
        self.first: float | None = None
        self.last: float | None = None

    @property
    def finished(self) -> bool:
        """Whether no more tokens come."""
        return self.finish_reason is not None or self.error is not None

    @property
    def drawn(self) -> int:
        """Number of tokens drawn so far."""
        return len(self.tokens) - len(self.request.prompt)

    def accept(self, token: int) -> None:
        """Takes a token that was drawn, and ends where it must."""
        now = time.perf_counter()
        self.first = self.first or now
        if token in self.request.stop_tokens:
            self.finish("stop")
            return
        self.last = now
        self.tokens.append(token)
        self._show(self.request.text.push(token))
        if self.request.text.stopped:
            self.finish("stop")
        elif self.drawn >= self.request.limit:
            self.finish("length")

    def finish(self, reason: FinishReason) -> None:
        """Ends it, unless it has ended before."""
        if not self.finished:
            self._show(self.request.text.flush())
            self.finish_reason = reason  # last: who sees it without the lock has all the text

    def fail(self, error: EdgeSdkError) -> None:
        """Ends it with an error, unless it has ended before."""
        if not self.finished:
            self.error = error

    def _show(self, piece: str) -> None:
        if piece:
            self.pieces.append(piece)
