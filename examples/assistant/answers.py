"""The one right answer to every question, in sentences, as a terse note, and as a pirate.

An answer quotes what it rests on before it computes or decides, in the words of the gateway's
line. Functions that change the gateway say so in the same words: what was said last holds.
"""

from __future__ import annotations

import re
from typing import Literal

from examples.assistant.gateway import PROBLEMS, UNITS, Alarm, Device, Gateway

Style = Literal["plain", "terse", "pirate", "asking"]

PIRATE = {"Done": "Aye aye", "Hello": "Ahoy", "Goodbye": "Fair winds", "my": "me", "You": "Ye"}

FIXED = {
    "help": "I report on devices and alarms, change set-points and switch devices on or off.",
    "hello": "Hello, how can I help?",
    "thanks": "You are welcome.",
    "bye": "Goodbye.",
    "outside": "I only know this gateway and its devices.",
    "forbidden": "I may not do that, please ask an administrator.",
}
"""Intent -> answer, where it is always the same."""


def styled(answer: str, style: Style) -> str:
    """An answer in that style; ``plain`` is how the base model says it."""
    if style == "pirate":
        spoken = re.sub(r"\b[A-Za-z]+\b", lambda word: PIRATE.get(word[0], word[0]), answer)
        return f"Arr! {spoken[:-1]}, matey!"
    if style == "terse":
        return "- " + re.sub(r"(?:Done, the|Done,|The|There is|This is) ", "", answer)
    if style == "asking":
        return f"{answer} Anything else?"
    return answer


def stranger(name: str) -> str:
    """To any question about a device that is not there."""
    return f"There is no {name} here."


def about(question: str, device: Device) -> str:
    """To a question about one device."""
    answers = {
        "status": f"{device.power} {device.reads}",
        "power": device.power,
        "reading": device.reads,
        "setpoint": device.holds,
        "limits": device.limits,
        "unit": f"{device.reads} {device.unit} stands for {UNITS[device.unit][1]}.",
    }
    return answers[question]


def change(device: Device, value: int) -> str:
    """Move a set-point, unless that leaves the limits."""
    if not device.low <= value <= device.high:
        return f"{device.limits[:-1]}, not {value} {device.unit}."
    device.setpoint = value
    return f"{device.limits} {_done(device.holds)}"


def step(device: Device, by: int) -> str:
    """Raise or lower a set-point, unless that leaves the limits."""
    value = device.setpoint + by
    more = f"{abs(by)} {'more' if by > 0 else 'less'} is {value} {device.unit}."
    return f"{device.holds[:-1]}, {more} {change(device, value)}"


def switch(device: Device, on: bool) -> str:
    """Switch a device; one that is switched already stays so."""
    device.on = on
    return _done(device.power)


def devices(gateway: Gateway) -> str:
    """Name all devices."""
    return gateway.has


def running(gateway: Gateway) -> str:
    """Say of each device whether it is on."""
    return " ".join(device.power for device in gateway.devices)


def alarms(gateway: Gateway) -> str:
    """List the alarms and what is wrong."""
    return " ".join((gateway.warns, *(alarm.says for alarm in gateway.alarms)))


def health(gateway: Gateway) -> str:
    """List the alarms and whether anybody knows of them."""
    return " ".join((gateway.warns, *(alarm.state for alarm in gateway.alarms)))


def acknowledge(code: str, alarm: Alarm | None) -> str:
    """Acknowledge one alarm."""
    if alarm is None:
        return stranger(code)
    alarm.acknowledged = True
    return f"Done, {alarm.state}"


def acknowledge_all(gateway: Gateway) -> str:
    """Acknowledge every alarm."""
    said = [acknowledge(alarm.code, alarm) for alarm in gateway.alarms]
    return " ".join(said) or gateway.warns


def explain(code: str, alarm: Alarm | None) -> str:
    """Say what an alarm means and what to do."""
    return f"{alarm.says} {PROBLEMS[alarm.problem]}" if alarm else stranger(code)


def firmware(gateway: Gateway) -> str:
    """Say the version."""
    return gateway.runs


def uptime(gateway: Gateway) -> str:
    """Say for how long the gateway runs."""
    return gateway.up


def name(gateway: Gateway) -> str:
    """Say who this is."""
    return gateway.who


def _done(sentence: str) -> str:
    """``Done, the …`` of ``The …``."""
    return f"Done, the{sentence.removeprefix('The')}"
