"""The gateway that dialogues are about: its devices, its alarms, and the line that describes them.

The line stands first in every dialogue, as an agent would write it from live values: one short
sentence for each thing known. Answers repeat its sentences, so a model that has only memorized
sentences gets nothing right.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Side = Literal["train", "heldout"]

DEVICES = (
    *("boiler", "pump", "fan", "valve", "heater", "cooler", "mixer", "motor", "oven", "furnace"),
    *("dryer", "burner", "tank", "press", "lathe", "generator", "lamp", "charger", "blower"),
    *("compressor", "conveyor", "inverter", "thermostat", "chiller", "crane", "turbine", "robot"),
    *("freezer", "washer", "humidifier", "filter", "scale"),
)

UNITS = {
    "C": ("temperature", "degrees Celsius"),
    "bar": ("pressure", "bar"),
    "%": ("level", "percent"),
    "kW": ("power", "kilowatts"),
    "V": ("voltage", "volts"),
    "Hz": ("frequency", "hertz"),
}
"""Unit -> the quantity it measures, and its full name."""

CODES = tuple(f"{letter}{digit}" for letter in "ABEFTW" for digit in range(1, 10))
"""Codes of alarms."""

PROBLEMS = {
    "overheated": "Check its cooling and its load.",
    "too cold": "Check its heating and its insulation.",
    "low pressure": "Look for a leak.",
    "no signal": "Check its cable and its power.",
    "overload": "Reduce its load and let it rest.",
    "door open": "Close its door.",
    "dirty filter": "Clean or change its filter.",
    "vibration": "Check its bearings and its mounts.",
    "battery empty": "Charge or change its battery.",
    "weak flow": "Check its valves and its pipes.",
}
"""Problem -> what to do about it."""


@dataclass
class Device:
    """Something that the gateway controls; the set-point lies within the limits."""

    name: str
    unit: str
    reading: int
    on: bool
    setpoint: int
    low: int
    high: int

    @property
    def power(self) -> str:
        """Whether it is on, in a sentence."""
        return f"The {self.name} is now {'on' if self.on else 'off'}."

    @property
    def reads(self) -> str:
        """What it measures."""
        return f"The {self.name} reads {self.reading} {self.unit}."

    @property
    def holds(self) -> str:
        """Its set-point."""
        return f"The {self.name} holds {self.setpoint} {self.unit}."

    @property
    def limits(self) -> str:
        """Where its set-point may lie."""
        return f"The {self.name} allows {self.low} to {self.high} {self.unit}."

    @property
    def line(self) -> str:
        """All that is known of it."""
        return f"{self.power} {self.reads} {self.holds} {self.limits}"


@dataclass
class Alarm:
    """A problem of a device."""

    code: str
    device: Device
    problem: str
    acknowledged: bool

    @property
    def says(self) -> str:
        """What is wrong, in a sentence."""
        return f"{self.code} says {self.device.name} {self.problem}."

    @property
    def state(self) -> str:
        """``new`` until somebody has acknowledged it."""
        return f"{self.code} is {'acknowledged' if self.acknowledged else 'new'}."


@dataclass
class Gateway:
    """A gateway at one moment."""

    name: str
    firmware: str
    days: int
    devices: Sequence[Device]
    alarms: Sequence[Alarm]

    @property
    def who(self) -> str:
        """Its name, in a sentence."""
        return f"This is gateway {self.name}."

    @property
    def runs(self) -> str:
        """Its version."""
        return f"The gateway runs firmware {self.firmware}."

    @property
    def up(self) -> str:
        """Since when it runs."""
        return f"The gateway has been up for {self.days} days."

    @property
    def has(self) -> str:
        """Its devices by name."""
        return _listed("device", [device.name for device in self.devices])

    @property
    def warns(self) -> str:
        """Its alarms by code."""
        return _listed("alarm", [alarm.code for alarm in self.alarms])

    @property
    def line(self) -> str:
        """The system message of a dialogue."""
        devices = [device.line for device in self.devices]
        alarms = [f"{alarm.says} {alarm.state}" for alarm in self.alarms]
        return " ".join((self.who, self.runs, self.up, self.has, *devices, self.warns, *alarms))


def draw_gateway(side: Side, rng: random.Random) -> Gateway:
    """Draw a gateway with one to four devices and up to two alarms."""
    names = rng.sample(DEVICES, rng.choice([1, 2, 2, 3, 3, 4]))
    devices = [_draw_device(side, name, rng) for name in names]
    codes = rng.sample(CODES, rng.choice([0, 0, 1, 1, 2]))
    alarms = [
        Alarm(code, rng.choice(devices), rng.choice(list(PROBLEMS)), rng.random() < 0.3)
        for code in codes
    ]
    place = rng.choice(["east", "west", "north", "south", "hall", "plant", "line", "roof"])
    firmware = f"{rng.randint(1, 9)}.{rng.randrange(10)}"
    return Gateway(f"{place}-{rng.randint(1, 9)}", firmware, rng.randint(2, 99), devices, alarms)


def is_heldout(name: str, reading: int) -> bool:
    """Whether this device never reads so in training; one in four readings of each device."""
    return (DEVICES.index(name) + reading) % 4 == 0


def _draw_device(side: Side, name: str, rng: random.Random) -> Device:
    low = rng.randrange(4, 9) * 5
    high = low + rng.randrange(4, 9) * 5
    setpoint = rng.randint(low, high)
    near = range(setpoint - 9, setpoint + 10)
    return Device(
        name=name,
        unit=rng.choice(list(UNITS)),
        reading=rng.choice([x for x in near if is_heldout(name, x) == (side == "heldout")]),
        on=rng.random() < 0.6,
        setpoint=setpoint,
        low=low,
        high=high,
    )


def _listed(kind: str, names: Sequence[str]) -> str:
    """A sentence such as ``2 devices: a and b.``."""
    if not names:
        return f"No {kind}s."
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{len(names)} {kind}{'s' if len(names) > 1 else ''}: {listed}."
