"""The gateway that dialogues are about: its devices, its alarms, and the line that describes them.

The line stands first in every dialogue, as an agent would write it from live values. Answers copy
names and numbers from it, so a model that has only memorized sentences gets nothing right.
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
    "too hot": "Check its cooling and its load.",
    "too cold": "Check its heating and its insulation.",
    "low pressure": "Look for a leak.",
    "no signal": "Check its cable and its power.",
    "overload": "Reduce its load and let it rest.",
    "door open": "Close its door.",
    "dirty filter": "Clean or change its filter.",
    "vibration": "Check its bearings and its mounts.",
    "low battery": "Charge or change its battery.",
    "low flow": "Check its valves and its pipes.",
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
    def line(self) -> str:
        """All that is known of it."""
        power = "on" if self.on else "off"
        return (
            f"{self.name} {power}, {self.reading} {self.unit}, "
            f"set {self.setpoint}, limits {self.low} to {self.high}"
        )


@dataclass
class Alarm:
    """A problem of a device."""

    code: str
    device: Device
    problem: str
    acknowledged: bool

    @property
    def line(self) -> str:
        """The alarm as it is listed."""
        return f"{self.code} {self.device.name} {self.problem}, {self.state}"

    @property
    def state(self) -> str:
        """``new`` until somebody has acknowledged it."""
        return "acknowledged" if self.acknowledged else "new"


@dataclass
class Gateway:
    """A gateway at one moment."""

    name: str
    firmware: str
    days: int
    devices: Sequence[Device]
    alarms: Sequence[Alarm]

    @property
    def line(self) -> str:
        """The system message of a dialogue."""
        alarms = "; ".join(alarm.line for alarm in self.alarms)
        return (
            f"Gateway {self.name}, firmware {self.firmware}, up {self.days} days. "
            f"Devices: {'; '.join(device.line for device in self.devices)}. "
            + (f"Alarms: {alarms}." if alarms else "No alarms.")
        )


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
    low = rng.randrange(2, 9) * 5
    high = low + rng.randrange(4, 10) * 5
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
