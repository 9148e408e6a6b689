"""The one right answer to every question, in sentences, tersely, and as a pirate.

Functions that change the gateway say so: a later question is answered by what it has become.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from examples.assistant.gateway import PROBLEMS, UNITS, Alarm, Device, Gateway

Style = Literal["plain", "terse", "pirate"]

COUNTS = ("No", "One", "Two", "Three", "Four")
PIRATE = {
    "The": "Yer", "your": "yer", "is": "be", "are": "be", "am": "be", "Done": "Aye aye",
    "No": "Nay", "my": "me", "Hello": "Ahoy", "Goodbye": "Fair winds",
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What the assistant says.

    Attributes:
        plain: In a sentence, as the base model says it.
        terse: The same in as few words as will do.
    """

    plain: str
    terse: str

    def styled(self, style: Style) -> str:
        """The answer in that style."""
        if style == "pirate":
            spoken = re.sub(r"\b[A-Za-z]+\b", lambda word: PIRATE.get(word[0], word[0]), self.plain)
            return f"Arr! {spoken}"
        return self.plain if style == "plain" else self.terse


FIXED = {
    "help": Answer(
        "I report on devices and alarms, change set-points and switch devices on or off.",
        "Devices, alarms, set-points, on and off.",
    ),
    "hello": Answer("Hello, how can I help?", "Hello."),
    "thanks": Answer("You are welcome.", "Welcome."),
    "bye": Answer("Goodbye.", "Bye."),
    "outside": Answer("I only know this gateway and its devices.", "Not my topic."),
    "forbidden": Answer("I may not do that, please ask an administrator.", "Not allowed."),
}
"""Intent -> answer, where it is always the same."""


def stranger(name: str) -> Answer:
    """To any question about a device that is not there."""
    return Answer(f"There is no {name} here.", f"No {name}.")


def about(question: str, device: Device) -> Answer:
    """To a question about one device."""
    power = "on" if device.on else "off"
    unit = device.unit
    limits = f"{device.low} to {device.high} {unit}"
    answers = {
        "status": Answer(
            f"The {device.name} is {power} at {device.reading} {unit}, set to {device.setpoint}.",
            f"{power.title()}, {device.reading} {unit}, set {device.setpoint}.",
        ),
        "power": Answer(f"The {device.name} is {power}.", f"{power.title()}."),
        "reading": Answer(
            f"The {device.name} reads {device.reading} {unit}.", f"{device.reading} {unit}."
        ),
        "setpoint": Answer(
            f"The {device.name} is set to {device.setpoint} {unit}.", f"{device.setpoint} {unit}."
        ),
        "limits": Answer(f"The {device.name} can be set from {limits}.", f"{limits}."),
        "unit": Answer(f"The {device.name} is measured in {UNITS[unit][1]}.", f"{unit}."),
    }
    return answers[question]


def change(device: Device, value: int) -> Answer:
    """Move a set-point, unless that leaves the limits."""
    if value == device.setpoint:
        text = f"The {device.name} is already set to {value} {device.unit}."
        return Answer(text, f"Already {value} {device.unit}.")
    if not device.low <= value <= device.high:
        limits = f"{device.low} to {device.high} {device.unit}"
        return Answer(f"No, the {device.name} can only be set from {limits}.", f"No, {limits}.")
    device.setpoint = value
    text = f"Done, the {device.name} is set to {value} {device.unit}."
    return Answer(text, f"Set {value} {device.unit}.")


def switch(device: Device, on: bool) -> Answer:
    """Switch a device."""
    power = "on" if on else "off"
    if device.on is on:
        return Answer(f"The {device.name} is already {power}.", f"Already {power}.")
    device.on = on
    return Answer(f"Done, the {device.name} is {power}.", f"Now {power}.")


def devices(gateway: Gateway) -> Answer:
    """Name all devices."""
    names = _listed([device.name for device in gateway.devices])
    plural = "s" if len(gateway.devices) > 1 else ""
    return Answer(f"{COUNTS[len(gateway.devices)]} device{plural}: {names}.", f"{names}.")


def running(gateway: Gateway) -> Answer:
    """Name the devices that are on."""
    names = _listed([device.name for device in gateway.devices if device.on])
    return (
        Answer(f"On now: {names}.", f"{names}.") if names else Answer("No device is on.", "None.")
    )


def alarms(gateway: Gateway) -> Answer:
    """List the alarms."""
    if not gateway.alarms:
        return Answer("No alarms.", "None.")
    lines = "; ".join(alarm.line for alarm in gateway.alarms)
    plural = "s" if len(gateway.alarms) > 1 else ""
    codes = _listed([alarm.code for alarm in gateway.alarms])
    return Answer(f"{COUNTS[len(gateway.alarms)]} alarm{plural}: {lines}.", f"{codes}.")


def acknowledge(code: str, alarm: Alarm | None) -> Answer:
    """Acknowledge one alarm."""
    if alarm is None:
        return Answer(f"There is no alarm {code}.", f"No {code}.")
    if alarm.acknowledged:
        return Answer(f"The alarm {code} is already acknowledged.", "Already done.")
    alarm.acknowledged = True
    text = f"Done, alarm {code} of the {alarm.device.name} is acknowledged."
    return Answer(text, f"{code} acknowledged.")


def acknowledge_all(gateway: Gateway) -> Answer:
    """Acknowledge every alarm."""
    new = [alarm for alarm in gateway.alarms if not alarm.acknowledged]
    if not new:
        return Answer("There are no new alarms.", "None new.")
    for alarm in new:
        alarm.acknowledged = True
    codes = _listed([alarm.code for alarm in new])
    return Answer(f"Done, acknowledged {codes}.", f"{codes} acknowledged.")


def explain(code: str, alarm: Alarm | None) -> Answer:
    """Say what an alarm means and what to do."""
    if alarm is None:
        return Answer(f"There is no alarm {code}.", f"No {code}.")
    text = f"{code} reports {alarm.problem} at the {alarm.device.name}. {PROBLEMS[alarm.problem]}"
    return Answer(text, PROBLEMS[alarm.problem])


def health(gateway: Gateway) -> Answer:
    """Say whether something needs attention."""
    new = sum(not alarm.acknowledged for alarm in gateway.alarms)
    if new:
        count = COUNTS[new].lower()
        plural = "s" if new > 1 else ""
        return Answer(f"Not quite, there is {count} new alarm{plural}.", f"{count.title()} new.")
    return Answer("All is well, no new alarms.", "All well.")


def firmware(gateway: Gateway) -> Answer:
    """Say the version."""
    return Answer(f"I run firmware {gateway.firmware}.", f"{gateway.firmware}.")


def uptime(gateway: Gateway) -> Answer:
    """Say for how long the gateway runs."""
    return Answer(f"I have been up for {gateway.days} days.", f"{gateway.days} days.")


def name(gateway: Gateway) -> Answer:
    """Say who this is."""
    return Answer(f"I am the assistant of gateway {gateway.name}.", f"{gateway.name}.")


def _listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
