"""The prefix cache: which tokens each row of the KV cache holds, and who gets which row. Pure.

The rows are the cache. A finished sequence leaves its tokens in its row; a new
one begins behind the longest prefix that any row holds, its own or copied from
another, so that a system prompt or a chat's history is computed once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

# Copying a token's keys and values takes a fiftieth of computing them, so a row is
# continued in place only where at most this share of the match would be lost to it.
LOST_SHARE = 8
# The logits of the last token are needed; and while two tokens or two hundred give a row the
# same bits, a single one goes through another kernel, which rounds otherwise.
FRESH = 2


@dataclass
class Row:
    """What one row of the KV cache holds.

    Attributes:
        tokens: Tokens whose keys and values are there, in order.
        adapter: The adapter they were computed with.
        used: When it was last taken or given back, in steps of a counter.
    """

    tokens: list[int] = field(default_factory=list)
    adapter: str | None = None
    used: int = 0


@dataclass(frozen=True)
class Place:
    """Where a new sequence goes.

    Attributes:
        row: Its row.
        cached: Tokens of it that need not be computed.
        source: The row they must be copied from; ``None`` where they are in place.
    """

    row: int
    cached: int
    source: int | None


class Rows:
    """The rows of one KV cache. Not to be shared between threads without a lock.

    Args:
        count: Number of rows.
    """

    def __init__(self, count: int) -> None:
        self._rows = [Row() for _ in range(count)]
        self._clock = 0

    def __getitem__(self, index: int) -> Row:
        return self._rows[index]

    def take(
        self, prompt: Sequence[int], adapter: str | None, busy: Collection[int]
    ) -> Place | None:
        """Finds a row for a new sequence; ``None`` while all are busy.

        At least :data:`FRESH` tokens of the prompt are left to compute. Of the rows that
        are not busy the one unused for longest is given up. Where the prefix must be
        copied, the row holds nothing until the caller has done so.
        """
        free = [i for i in range(len(self._rows)) if i not in busy]
        if not free:
            return None
        matches = [
            common_prefix(row.tokens, prompt[:-FRESH]) if row.adapter == adapter else 0
            for row in self._rows
        ]
        best = max(range(len(matches)), key=lambda i: (matches[i], i in free))
        cached = matches[best]
        lost = len(self._rows[best].tokens) - cached
        if cached and best in free and lost * LOST_SHARE <= cached:
            target = best
        else:
            target = min(free, key=lambda i: self._rows[i].used)
        self.touch(target)
        row = self._rows[target]
        row.adapter = adapter
        del row.tokens[cached if target == best else 0 :]
        return Place(target, cached, best if cached and best != target else None)

    def touch(self, index: int) -> None:
        """Notes that a row was used just now."""
        self._clock += 1
        self._rows[index].used = self._clock

    def swap(self, one: int, other: int) -> None:
        """Exchanges two rows, after their keys and values were exchanged."""
        self._rows[one], self._rows[other] = self._rows[other], self._rows[one]


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of leading tokens that two sequences share."""
    for count, (left, right) in enumerate(zip(one, other)):  # noqa: B905  the shorter one ends it
        if left != right:
            return count
    return min(len(one), len(other))
