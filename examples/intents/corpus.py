"""Generate the gateway-assistant corpus from the grammar in ``corpus.toml``.

An utterance is an opening, one phrasing of its intent with slots filled in, a closing, and now
and then a typing mistake. Training and held-out sides of the grammar share no phrasing.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tomllib

Side = Literal["train", "heldout"]

_CHOICE = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")
_TYPO_RATE = 0.15
_NAMES = frozenset({"kind", "place", "quantity", "opening", "closing"})
"""Slots where users will say words that no list foresees."""


@dataclass(frozen=True)
class Utterance:
    """One line a user typed and the name of its intent."""

    text: str
    label: str


@dataclass(frozen=True)
class Grammar:
    """One side of the grammar.

    Attributes:
        intents: Phrasings by intent.
        slots: Values by slot.
        invent: How often a name is made up instead of taken from its list, and how often an
            utterance gets a word that means nothing.
    """

    intents: Mapping[str, Sequence[str]]
    slots: Mapping[str, Sequence[str]]
    invent: float = 0.0

    @classmethod
    def load(cls, side: Side, invent: float = 0.0) -> Grammar:
        """Read one side of ``corpus.toml``."""
        text = Path(__file__).with_name("corpus.toml").read_text(encoding="utf-8")
        tables = tomllib.loads(text)
        return cls(
            {name: table[side] for name, table in tables["intents"].items()},
            {name: table[side] for name, table in tables["slots"].items()},
            invent,
        )

    @property
    def labels(self) -> list[str]:
        """Intent names; the position is the class index."""
        return list(self.intents)

    def utterance(self, label: str, rng: random.Random) -> Utterance:
        """Draw one utterance of intent `label`."""
        phrasing = rng.choice(self.intents[label])
        text = self._fill("{opening} " + phrasing + " {closing}", rng)
        words = text.split()
        if rng.random() < self.invent:
            words.insert(rng.randrange(len(words) + 1), _invented_word(rng))
        text = " ".join(words)
        if rng.random() < _TYPO_RATE:
            text = _mistype(text, rng)
        return Utterance(text + rng.choice(["", "", "?", ".", "!"]), label)

    def _fill(self, text: str, rng: random.Random) -> str:
        """Resolve choices and slots until none is left; slot values may hold both."""
        while _CHOICE.search(text) or _SLOT.search(text):
            text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)
            text = _SLOT.sub(lambda match: self._value(match[1], rng), text)
        return text

    def _value(self, slot: str, rng: random.Random) -> str:
        if slot in _NAMES and rng.random() < self.invent:
            return _invented_word(rng)
        return rng.choice(self.slots[slot])


def generate(
    grammar: Grammar, per_intent: int, seed: int, avoid: Sequence[Utterance] = ()
) -> list[Utterance]:
    """Draw distinct utterances, the same number for each intent, in shuffled order.

    Args:
        grammar: What to draw from.
        per_intent: Utterances per intent.
        seed: Seed of the draw.
        avoid: Utterances whose texts must not be drawn again.
    """
    rng = random.Random(seed)
    seen = {utterance.text for utterance in avoid}
    drawn = [
        u for label in grammar.labels for u in _distinct(grammar, label, per_intent, seen, rng)
    ]
    rng.shuffle(drawn)
    return drawn


def write_jsonl(utterances: Sequence[Utterance], path: Path) -> None:
    """Write ``{"text": …, "label": …}`` lines."""
    lines = [json.dumps({"text": u.text, "label": u.label}) + "\n" for u in utterances]
    path.write_text("".join(lines), encoding="utf-8")


def _distinct(
    grammar: Grammar, label: str, count: int, seen: set[str], rng: random.Random
) -> Iterator[Utterance]:
    while count:
        utterance = grammar.utterance(label, rng)
        if utterance.text not in seen:
            seen.add(utterance.text)
            count -= 1
            yield utterance


def _invented_word(rng: random.Random) -> str:
    """Two or three syllables that mean nothing."""
    syllables = rng.randint(2, 3)
    return "".join(
        rng.choice("bcdfghklmnprstvw") + rng.choice("aeiou") + rng.choice(["", "", "n", "r", "s"])
        for _ in range(syllables)
    )


def _mistype(text: str, rng: random.Random) -> str:
    """Swap, drop or double one letter."""
    at = rng.randrange(len(text) - 1)
    first, second = text[at], text[at + 1]
    return text[:at] + rng.choice([second + first, second, first + first + second]) + text[at + 2 :]
