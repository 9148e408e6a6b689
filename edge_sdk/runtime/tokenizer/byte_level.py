"""The tokenizer of one model, over its tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from edge_sdk.runtime.tokenizer.splitting import Splitter, UncertainError
from edge_sdk.runtime.tokenizer.table import NONE, Added, Table

if TYPE_CHECKING:
    import tokenizers

WORDS = 1024  # pieces whose tokens are remembered


class Encoding(NamedTuple):
    """A text in tokens.

    Attributes:
        ids: The tokens.
    """

    ids: list[int]


class ByteLevelTokenizer:
    """Byte-pair encoding of a text's UTF-8, named as in the tokenizers library.

    Safe to use from several threads.

    Args:
        table: The tables.
        library: Loads the library's tokenizer, for texts that these tables do not cover.
    """

    def __init__(self, table: Table, library: Callable[[], tokenizers.Tokenizer]) -> None:
        header = table.header
        self._table = table
        self._library = library
        self._splitter = Splitter(header.patterns, header.composed)
        self._special = {token for token, each in header.added.items() if each.special}
        self._added = {each.content: token for token, each in header.added.items()}
        self._finders = [
            _finder(each.content for each in header.added.values() if each.normalized == normalized)
            for normalized in (False, True)
        ]
        self._piece = lru_cache(WORDS)(self._merged)

    def get_added_tokens_decoder(self) -> dict[int, Added]:
        """Token -> what is added."""
        return self._table.header.added

    def id_to_token(self, token: int) -> bytes | None:
        """The bytes of a token; ``None`` where there is no such token."""
        return self._table.bytes_of(token) or None

    def encode(self, text: str, add_special_tokens: bool = False) -> Encoding:
        """The tokens of a text.

        Raises:
            TypeError: It holds half a character.
        """
        try:
            shadow = self._splitter.shadow(text)
        except UncertainError:
            return Encoding(self._library().encode(text, add_special_tokens=False).ids)
        return Encoding(list(self._tokens(text, shadow)))

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of tokens; bytes that are no character appear as U+FFFD."""
        skipped = self._special if skip_special_tokens else ()
        shown = (self._table.bytes_of(token) for token in ids if token not in skipped)
        return b"".join(shown).decode(errors="replace")

    def _tokens(self, text: str, shadow: str) -> Iterator[int]:
        for begin, end, token in self._parts(text, 0, len(text), 0):
            if token is not None:
                yield token
                continue
            for piece in self._splitter.split(text[begin:end], shadow[begin:end]):
                yield from self._piece(piece)

    def _parts(
        self, text: str, begin: int, end: int, kind: int
    ) -> Iterator[tuple[int, int, int | None]]:
        """A text parted by its added tokens: those as they are first, then the normalized."""
        if kind == len(self._finders):
            if begin < end:
                yield begin, end, None
            return
        finder = self._finders[kind]
        for match in finder.finditer(text, begin, end) if finder else ():
            yield from self._parts(text, begin, match.start(), kind + 1)
            yield *match.span(), self._added[match.group()]
            begin = match.end()
        yield from self._parts(text, begin, end, kind + 1)

    def _merged(self, piece: str) -> tuple[int, ...]:
        """The tokens of a piece."""
        data = piece.encode()
        if self._table.header.whole:
            token = self._table.find(data)
            if token is not None:
                return (token,)
        tokens = [self._table.of_byte[byte] for byte in data]
        return tuple(_merge(self._table, [token for token in tokens if token != NONE]))


def _merge(table: Table, tokens: list[int]) -> list[int]:
    """Merges pairs of tokens, the lowest rank first and, of the same, the leftmost.

    As the library does: what waits is dropped once its pair would become another token.
    """
    after = [*range(1, len(tokens)), -1]
    before = [*range(-1, len(tokens) - 1)]

    def found(left: int) -> tuple[int, int, int] | None:
        """Rank, position and token of the pair that begins here."""
        right = after[left]
        merge = table.merge(tokens[left], tokens[right]) if right >= 0 else None
        return None if merge is None else (merge[0], left, merge[1])

    waiting = [each for left in range(len(tokens) - 1) if (each := found(left)) is not None]
    heapify(waiting)
    while waiting:
        _, left, token = heappop(waiting)
        if tokens[left] == NONE:
            continue
        now = found(left)
        if now is None or now[2] != token:
            continue
        right = after[left]
        tokens[left], tokens[right] = token, NONE
        after[left] = after[right]
        if after[left] >= 0:
            before[after[left]] = left
        for place in (before[left], left):
            if place >= 0 and (each := found(place)) is not None:
                heappush(waiting, each)
    return [token for token in tokens if token != NONE]


def _finder(contents: Iterable[str]) -> re.Pattern[str] | None:
    """Finds added tokens, of several at one place the longest."""
    ordered = sorted(contents, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None
