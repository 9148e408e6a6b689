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

KINDS = (
    *("pump", "fan", "valve", "boiler", "compressor", "heater", "conveyor", "mixer"),
    *("inverter", "thermostat", "motor", "oven", "furnace", "dryer", "burner", "cooler"),
    *("tank", "press", "lathe", "generator", "lamp", "charger", "blower", "filter"),
)
NUMBERS = range(1, 20)

UNITS = {
    "C": ("temperature", "degrees Celsius"),
    "bar": ("pressure", "bar"),
    "%": ("level", "percent"),
    "kW": ("power", "kilowatts"),
    "V": ("voltage", "volts"),
    "rpm": ("speed", "revolutions per minute"),
}
"""Unit -> the quantity it measures, and its full name."""

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

    kind: str
    number: int
    unit: str
    reading: str
    on: bool
    setpoint: int
    low: int
    high: int

    @property
    def name(self) -> str:
        """How the gateway calls it."""
        return f"{self.kind}-{self.number}"

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
    kinds = rng.sample(KINDS, rng.choice([1, 2, 2, 3, 3, 4]))
    if rng.random() < 0.3:
        kinds[-1] = kinds[0]
    names: list[tuple[str, int]] = []
    for kind in kinds:
        free = [number for number in numbers(side, kind) if (kind, number) not in names]
        names.append((kind, rng.choice(free)))
    devices = [_draw_device(kind, number, rng) for kind, number in names]
    codes = rng.sample(range(1, 100), 2)
    alarms = [
        Alarm(
            f"{rng.choice('ABEFTW')}{code:02}",
            rng.choice(devices),
            rng.choice(list(PROBLEMS)),
            rng.random() < 0.3,
        )
        for code in codes[: rng.choice([0, 0, 1, 1, 2])]
    ]
    name = rng.choice(["east", "west", "north", "south", "hall", "plant", "gw", "line", "roof"])
    firmware = ".".join(str(rng.randrange(10)) for _ in range(3))
    return Gateway(f"{name}-{rng.randint(1, 99)}", firmware, rng.randint(2, 99), devices, alarms)


def numbers(side: Side, kind: str) -> list[int]:
    """Numbers that devices of a kind have; no device is both trained on and held out."""
    first = KINDS.index(kind)
    return [number for number in NUMBERS if ((first + number) % 4 == 0) == (side == "heldout")]


def _draw_device(kind: str, number: int, rng: random.Random) -> Device:
    unit = rng.choice(list(UNITS))
    scale = 100 if unit == "rpm" else 1
    low = rng.randrange(2, 9) * 5
    high = low + rng.randrange(4, 10) * 5
    setpoint = rng.randint(low, high)
    reading = setpoint + rng.randint(-9, 9)
    text = str(reading * 100) if unit == "rpm" else f"{reading}.{rng.randrange(10)}"
    on = rng.random() < 0.6
    return Device(kind, number, unit, text, on, setpoint * scale, low * scale, high * scale)
