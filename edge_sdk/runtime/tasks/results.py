"""What tasks answer with."""

from __future__ import annotations

import msgspec


class Classification(msgspec.Struct, frozen=True):
    """One class with its score: a probability where the variant has a step that makes it one."""

    label: str
    score: float


class Entity(msgspec.Struct, frozen=True):
    """A stretch of a text with a label.

    Attributes:
        label: What it is.
        score: Mean probability over its tokens.
        text: The stretch itself, ``given[start:end]``.
        start: First character.
        end: Character after the last.
    """

    label: str
    score: float
    text: str
    start: int
    end: int


class Answer(msgspec.Struct, frozen=True):
    """A stretch of the context that answers the question.

    Attributes:
        text: The stretch itself, ``context[start:end]``; empty where there is no answer.
        score: Its probability.
        start: First character.
        end: Character after the last.
    """

    text: str
    score: float
    start: int
    end: int


class Filling(msgspec.Struct, frozen=True):
    """What may stand in a gap, with its probability."""

    text: str
    score: float


class Word(msgspec.Struct, frozen=True):
    """A spoken word, and when it was said, in seconds from the start of the clip."""

    text: str
    start: float
    end: float


class Transcription(msgspec.Struct, frozen=True):
    """What was said.

    Attributes:
        text: All of it.
        words: Its words in time, where the model tells.
    """

    text: str
    words: tuple[Word, ...] = ()
