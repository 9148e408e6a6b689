"""Dialogues with a gateway: what is asked, how it is said, and what is answered.

Questions come from ``corpus.toml``. Answers follow from the gateway's line and from what was said
since: names and values are copied, set-points computed and held against their limits, ``it`` is
the device spoken of last, and changes are remembered.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import tomllib

from examples.assistant import answers
from examples.assistant.answers import Style, styled
from examples.assistant.gateway import (
    CODES,
    DEVICES,
    UNITS,
    Device,
    Gateway,
    Side,
    draw_gateway,
)

Message = dict[str, str]

_CHOICE = re.compile(r"\(([^()]*)\)(\??)")
_READING = re.compile(r"The (\w+) reads (\d+)")
_SLOT = re.compile(r"\{(\w+)\}")
SEED = 23
MEAN_TURNS = 6
TRAINING, CALIBRATION, HELDOUT = 22_000, 100, 200
"""Dialogues of each set."""
ASKABLE = ("status", "power", "reading", "setpoint", "limits", "unit")
"""Questions about one device, which ``and the pump?`` may follow."""
WEIGHTS = {
    **dict.fromkeys(("status", "reading", "setpoint", "limits", "set", "raise", "lower"), 2.0),
    **dict.fromkeys(("hello", "thanks", "bye", "name", "help", "uptime", "firmware"), 0.5),
    "follow": 0.0,
}
"""How often an intent is drawn, where not once; ``follow`` is drawn where it can be."""
PRACTISED = WEIGHTS | {"raise": 5.0, "lower": 5.0, "acknowledge": 2.0, "explain": 2.0}
"""The same where the model is trained: sums and codes take more examples than sentences."""


@dataclass(frozen=True)
class Exchange:
    """One question and its answer."""

    intent: str
    question: str
    answer: str


@dataclass(frozen=True)
class Dialogue:
    """A gateway's line and what was said."""

    system: str
    exchanges: tuple[Exchange, ...]

    def messages(self, style: Style = "plain") -> list[Message]:
        """The dialogue in the form that chat templates take."""
        said = [{"role": "system", "content": self.system}]
        for exchange in self.exchanges:
            said.append({"role": "user", "content": exchange.question})
            said.append({"role": "assistant", "content": styled(exchange.answer, style)})
        return said


@cache
def corpus() -> Mapping[str, Mapping[str, Any]]:
    """The content of ``corpus.toml``."""
    return tomllib.loads(Path(__file__).with_name("corpus.toml").read_text(encoding="utf-8"))


def phrasings(side: Side) -> frozenset[str]:
    """Everything that can be said, with slots open and without openings and closings."""
    return frozenset(
        " ".join(phrase.replace("{it}", "{device}").split())
        for intent in corpus()["intents"].values()
        for template in intent[side]
        for phrase in _expansions(template)
    )


def draw_dialogues(side: Side, count: int, seed: int, longest: int) -> Iterator[Dialogue]:
    """Draw that many dialogues: mostly of a few exchanges, now and then of many."""
    rng = random.Random(seed)
    for _ in range(count):
        scene = _Scene(side, draw_gateway(side, rng), rng)
        system = scene.gateway.line
        turns = min(1 + int(rng.expovariate(1 / MEAN_TURNS)), longest)
        yield Dialogue(system, tuple(scene.exchange() for _ in range(turns)))


def training_set() -> Iterator[Dialogue]:
    """What the model is trained on; some dialogues nearly fill its context."""
    return draw_dialogues("train", TRAINING, SEED, longest=20)


def calibration_set() -> Iterator[Dialogue]:
    """Dialogues like the training set's, but none of them."""
    return draw_dialogues("train", CALIBRATION, SEED + 1, longest=5)


def heldout_set() -> Iterator[Dialogue]:
    """Dialogues in phrasings and with devices that were not trained on."""
    return draw_dialogues("heldout", HELDOUT, SEED + 2, longest=10)


def readings(dialogues: Iterable[Dialogue]) -> frozenset[tuple[str, str]]:
    """Every device with what it reads, in these dialogues."""
    return frozenset(pair for one in dialogues for pair in _READING.findall(one.system))


def write_jsonl(dialogues: Iterable[Dialogue], path: Path, style: Style = "plain") -> None:
    """Write ``{"messages": …}`` lines."""
    lines = [json.dumps({"messages": one.messages(style)}) + "\n" for one in dialogues]
    path.write_text("".join(lines), encoding="utf-8")


class _Scene:
    """A dialogue in progress: the gateway as it has become, and what ``it`` would mean."""

    def __init__(self, side: Side, gateway: Gateway, rng: random.Random) -> None:
        self.side = side
        self.gateway = gateway
        self.rng = rng
        self.focus: Device | None = None
        self.asked: str | None = None

    def exchange(self) -> Exchange:
        """Draw an intent and how it is said; change the gateway as the answer says."""
        intents = corpus()["intents"]
        often = PRACTISED if self.side == "train" else WEIGHTS
        weights = [often.get(name, 1.0) for name in intents]
        intent = self.rng.choices(list(intents), weights)[0]
        if self.asked and self.rng.random() < 0.3:
            intent = "follow"
        template = self.rng.choice(intents[intent][self.side])
        phrase = _CHOICE.sub(lambda found: self.rng.choice(_options(found)), template)
        slots, answer = self._answer(intent, phrase)
        return Exchange(intent, self._said(phrase, slots), answer)

    def _answer(self, intent: str, phrase: str) -> tuple[dict[str, str], str]:
        asked, self.asked = self.asked, None
        if intent in answers.FIXED:
            slots = self._device(phrase)[1] if "{" in phrase else {}
            return slots, answers.FIXED[intent]
        if intent in ("acknowledge", "explain"):
            code = self._code()
            alarm = next((one for one in self.gateway.alarms if one.code == code), None)
            self.focus = alarm.device if alarm and intent == "explain" else None
            return {"code": code}, getattr(answers, intent)(code, alarm)
        if "{" not in phrase:
            self.focus = None
            return {}, getattr(answers, intent)(self.gateway)
        device, slots = self._device(phrase)
        if intent in ("set", "raise", "lower"):
            slots, value = self._target(intent, device, slots)
        if device is None:
            return slots, answers.stranger(slots["name"])
        if intent == "set":
            return slots, answers.change(device, value)
        if intent in ("raise", "lower"):
            return slots, answers.step(device, value)
        if intent in ("switch_on", "switch_off"):
            return slots, answers.switch(device, intent == "switch_on")
        self.asked = asked if intent == "follow" else intent
        assert self.asked in ASKABLE
        return slots, answers.about(self.asked, device)

    def _device(self, phrase: str) -> tuple[Device | None, dict[str, str]]:
        """The device to talk about, and its names; ``None`` for one that does not exist."""
        if self.focus and ("{its}" in phrase or "{it}" in phrase) and self.rng.random() < 0.4:
            names = {"it": "it", "its": "its", "device": "it"}
            return self.focus, names | {"quantity": UNITS[self.focus.unit][0]}
        known = {device.name: device for device in self.gateway.devices}
        strange = self.rng.random() < 0.07
        name = self.rng.choice([one for one in DEVICES if (one not in known) == strange])
        self.focus = known.get(name)
        unit = self.focus.unit if self.focus else self.rng.choice(list(UNITS))
        mention = self.rng.choice([name, f"the {name}", f"the {name}"])
        names = {"name": name, "device": mention, "it": mention, "its": f"the {name}"}
        return self.focus, names | {"quantity": UNITS[unit][0]}

    def _target(
        self, intent: str, device: Device | None, slots: dict[str, str]
    ) -> tuple[dict[str, str], int]:
        """The set-point that is asked for, or by how much it shall change."""
        device = device or self.rng.choice(self.gateway.devices)
        unit = self.rng.choice(["", "", f" {device.unit}", f" {UNITS[device.unit][1]}"])
        step = self.rng.choice((1, 2, 5, 10))
        value = step if intent == "raise" else -step
        if intent == "set":
            beyond = self.rng.choice([*range(5, device.low), *range(device.high + 1, 100)])
            within = self.rng.randint(device.low, device.high)
            value = beyond if self.rng.random() < 0.25 else within
        return slots | {"value": f"{value}{unit}", "step": f"{step}{unit}"}, value

    def _code(self) -> str:
        """An alarm's code, mostly of one that is there."""
        codes = [alarm.code for alarm in self.gateway.alarms]
        if codes and self.rng.random() < 0.85:
            return self.rng.choice(codes)
        return self.rng.choice([code for code in CODES if code not in codes])

    def _said(self, phrase: str, slots: dict[str, str]) -> str:
        """The phrase as typed: slots filled, an opening, a closing, some punctuation."""
        frames = corpus()["slots"]
        text = _SLOT.sub(lambda found: slots[found[1]], phrase)
        opening, closing = (self.rng.choice(frames[name]) for name in ("opening", "closing"))
        text = " ".join(f"{opening}{text}{closing}".split())
        if self.rng.random() < 0.4:
            text = text[0].upper() + text[1:]
        return text + self.rng.choice(["", "", "?", "."])


def _options(choice: re.Match[str]) -> list[str]:
    """The alternatives of ``(a|b)``; ``(a)?`` may be left out."""
    return choice[1].split("|") + [""] * bool(choice[2])


def _expansions(template: str) -> Iterator[str]:
    """A template with its choices made in every way."""
    pieces: list[list[str]] = []
    end = 0
    for choice in _CHOICE.finditer(template):
        pieces += [[template[end : choice.start()]], _options(choice)]
        end = choice.end()
    for chosen in product(*pieces, [template[end:]]):
        yield "".join(chosen)
