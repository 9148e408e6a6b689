"""How much of a long prompt is computed between two tokens of the running streams. Pure.

Running streams shall keep their pace while another one's prompt is computed, so
each step of theirs that takes less than its share of the target leaves credit,
and a chunk is computed once the credit covers what it is measured to cost.
"""

from __future__ import annotations

# Seconds per token that running streams shall keep: 25 tokens per second and some room.
TARGET = 1 / 30
# Seconds that one chunk may keep running streams waiting.
STALL = 0.1
# Longer chunks are no faster and need more memory.
CHUNKS = (64, 32, 16)
# What a prompt gets, as a share of the time of the others, where those miss the target anyway.
LEAST_SHARE = 0.5
# Weight of the newest measurement in the running mean.
NEWEST = 0.3


class Pace:
    """Measured costs, and the size of the next chunk they allow."""

    def __init__(self) -> None:
        self._per_token: float | None = None
        self._credit = 0.0

    def decoded(self, seconds: float) -> None:
        """Notes what one token of each running stream took."""
        self._credit += max(TARGET - seconds, LEAST_SHARE * seconds)

    def prefilled(self, tokens: int, seconds: float) -> None:
        """Notes what a chunk took."""
        newest = seconds / tokens
        mean = newest if self._per_token is None else self._per_token
        self._per_token = mean + NEWEST * (newest - mean)
        self._credit = max(0.0, self._credit - seconds)

    def chunk(self, running: bool) -> int:
        """Tokens of a prompt to compute now; 0 while running streams come first.

        Args:
            running: Whether any stream draws tokens meanwhile.
        """
        if not running:
            self._credit = 0.0
            return CHUNKS[0]
        if self._per_token is None:
            return CHUNKS[-1]
        size = next((c for c in CHUNKS if c * self._per_token <= STALL), CHUNKS[-1])
        # A stall that was paid for is over: credit beyond one chunk would only bunch them.
        self._credit = min(self._credit, size * self._per_token)
        return size if self._credit >= size * self._per_token else 0
