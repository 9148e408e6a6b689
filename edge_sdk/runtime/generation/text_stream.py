"""Tokens to text while they are drawn: whole characters, up to a stop string.

Two small machines in a row. :class:`_Characters` turns tokens into text and keeps a
token back while its character is incomplete; :class:`_Stops` keeps text back while it
could be the beginning of a stop string.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_sdk.errors import InputError

if TYPE_CHECKING:
    from edge_sdk.runtime.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"  # what a decoder shows for bytes that are no character
# A character has at most four bytes, a token at least one. Longer without a character means
# that the bytes are none; they are shown as the tokenizer shows them.
LONGEST_CHARACTER = 16


class TextStream:
    """The text of one sequence, piece by piece. Not to be shared between sequences.

    The pieces together are what the tokenizer decodes from all tokens at once, special
    tokens left out, up to the first stop string. The work per token does not grow with
    the text.

    Args:
        tokenizer: The model's tokenizer.
        stop: Strings that end the text; they are not part of it.
        after: Tokens that the text continues. A tokenizer in the manner of SentencePiece
            drops the space at the beginning of a text, but not within.

    Raises:
        InputError: A stop string is empty.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str] = (), after: Sequence[int] = ()
    ) -> None:
        self._characters = _Characters(tokenizer, after)
        self._stops = _Stops(stop)

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found; nothing more will be shown."""
        return self._stops.found

    def push(self, token: int) -> str:
        """What can be shown after this token; often nothing, sometimes several characters."""
        return self._stops.push(self._characters.push(token))

    def flush(self) -> str:
        """What was still kept back, when no more tokens come.

        A character that remained incomplete appears as U+FFFD.
        """
        return self._stops.push(self._characters.flush()) + self._stops.flush()


class _Characters:
    """Tokens to whole characters.

    What a token adds is seen by decoding it behind the tokens before it, because spaces,
    and bytes that share a character, depend on the neighbour. The tokens of the last
    piece are enough of a neighbour.
    """

    def __init__(self, tokenizer: Tokenizer, after: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._special = {token for token, entry in added.items() if entry.special}
        self._before = list(after)  # not their end alone, which may begin within a character
        self._held: list[int] = []

    def push(self, token: int) -> str:
        if token in self._special or self._tokenizer.id_to_token(token) is None:
            return ""  # never shown, so never a neighbour either
        self._held.append(token)
        piece = self._piece()
        if piece.endswith(REPLACEMENT) and len(self._held) < LONGEST_CHARACTER:
            return ""
        return self._release(piece)

    def flush(self) -> str:
        return self._release(self._piece())

    def _piece(self) -> str:
        shown = self._tokenizer.decode(self._before)
        return self._tokenizer.decode(self._before + self._held)[len(shown) :]

    def _release(self, piece: str) -> str:
        # Tokens that show nothing (a dropped first space) are no neighbour on their own.
        self._before = self._held if piece else self._before + self._held
        self._held = []
        return piece


class _Stops:
    """Text up to the stop string that is complete first."""

    def __init__(self, stop: Sequence[str]) -> None:
        if "" in stop:
            raise InputError("a stop string is empty", where="stop")
        self._stop = tuple(stop)
        self._longest = max(map(len, stop), default=0)
        self._kept = ""
        self.found = False

    def push(self, piece: str) -> str:
        if self.found:
            return ""
        text = self._kept + piece
        complete = [
            (start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0
        ]
        if complete:
            self.found = True
            self._kept = ""
            return text[: min(complete)[1]]
        shown = len(text) - self._possible(text)
        self._kept = text[shown:]
        return text[:shown]

    def flush(self) -> str:
        kept, self._kept = self._kept, ""
        return kept

    def _possible(self, text: str) -> int:
        """Length of the longest end of ``text`` that a stop string begins with."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0
