r"""Texts to the pieces that byte-pair encoding merges within, as ``tokenizer.json`` asks.

The patterns speak of Unicode's letters and numbers (``\p{L}``), which :mod:`re` cannot. So
a text outside ASCII is first written as its shadow, of the same length, in which one
character stands for all of its class; patterns over ASCII and these see the same in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LETTER, NUMBER, SPACE, OTHER = "\xe9", "\xb2", "\xa0", "\xa1"
# By the first letter of Unicode's general category.
CLASSES = {"L": LETTER, "N": NUMBER}
# White_Space outside ASCII; ``str.isspace`` knows further characters.
SPACES = frozenset(
    "\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
# What equals an ASCII letter where case does not matter, or is read otherwise by some engine.
UNCERTAIN = frozenset("\u017f\u212a")

_L = f"A-Za-z{LETTER}"
_N = f"0-9{NUMBER}"
_S = rf"\t-\r {SPACE}"
_END = rf"[{_S}]+(?![^{_S}])|[{_S}]+"
_SHORT = "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
GPT2 = rf"'(?:[stmd]|re|ve|ll)| ?[{_L}]+| ?[{_N}]+| ?[^{_S}{_L}{_N}]+|{_END}"


def _llama(digits: str) -> str:
    return (
        rf"{_SHORT}|[^\r\n{_L}{_N}]?[{_L}]+|[{_N}]{digits}"
        rf"| ?[^{_S}{_L}{_N}]+[\r\n]*|[{_S}]*[\r\n]+|{_END}"
    )


def _written(digits: str) -> str:
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + digits + ""
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


# Patterns as tokenizer.json has them -> over shadows: Llama 3 and GLM 4; Qwen.
PATTERNS = {_written(digits): _llama(digits) for digits in ("{1,3}", "")}


class UncertainError(Exception):
    """How the library reads a text is not certain; it is to be asked. Never leaves the package."""


class Splitter:
    """Splits texts by patterns, one within the pieces of another.

    Args:
        patterns: Over shadows; what lies between matches is a piece as well.
        composed: Whether the text is first brought into Unicode's normal form C.
    """

    def __init__(self, patterns: Sequence[str], composed: bool) -> None:
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self._classes = _Classes()
        self._composed = composed

    def shadow(self, text: str) -> str:
        """The text's shadow.

        Raises:
            UncertainError: A character's class, or the text's normal form, is not certain.
        """
        if text.isascii():
            return text
        if self._composed:
            from unicodedata import is_normalized

            if not is_normalized("NFC", text):
                raise UncertainError
        return text.translate(self._classes)

    def split(self, text: str, shadow: str) -> Iterator[str]:
        """The pieces of a text.

        Args:
            text: The text.
            shadow: Its shadow.
        """
        spans: Iterator[tuple[int, int]] = iter([(0, len(text))])
        for pattern in self._patterns:
            spans = _within(pattern, shadow, spans)
        return (text[begin:end] for begin, end in spans)


class _Classes(dict[int, int]):
    """Code point -> the one that stands for its class, found as they come."""

    def __missing__(self, code: int) -> int:
        if code < 128:
            return code
        from unicodedata import category

        character = chr(code)
        kind = category(character)
        if kind in ("Cn", "Cs") or character in UNCERTAIN:  # a later Unicode may know it
            raise UncertainError
        found = SPACE if character in SPACES else CLASSES.get(kind[0], OTHER)
        if len(self) < 4096:  # enough for most of a language, and no more memory than that
            self[code] = ord(found)
        return ord(found)


def patterns_of(part: Mapping[str, Any] | None) -> list[str] | None:
    """The patterns of a ``pre_tokenizer``; ``None`` where one is not known."""
    match part:
        case {"type": "Sequence", "pretokenizers": list(parts)}:
            found = [patterns_of(each) for each in parts]
            if any(each is None for each in found):
                return None
            # What is written in bytes is no text any more, so that comes last.
            if any(each.get("type") == "ByteLevel" for each in parts[:-1]):
                return None
            return [pattern for each in found for pattern in each or ()]
        case {"type": "Digits", "individual_digits": bool(single)}:
            return [f"[{_N}]" if single else f"[{_N}]+"]
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return [GPT2]
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}:
            return []
        case {"type": "Split", "behavior": "Isolated", "invert": False, "pattern": pattern}:
            known = PATTERNS.get(pattern.get("Regex", ""))
            return None if known is None else [known]
    return None


def _within(
    pattern: re.Pattern[str], shadow: str, spans: Iterator[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Spans parted by a pattern: its matches, and what lies between them."""
    for begin, end in spans:
        for match in pattern.finditer(shadow, begin, end):
            if match.start() > begin:
                yield begin, match.start()
            yield match.span()
            begin = match.end()
        if begin < end:
            yield begin, end
