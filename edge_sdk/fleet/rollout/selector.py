"""Which devices: ``profile=arm64 and label.site=berlin,hamburg``.

::

    selector  = "all" | condition { " and " condition }
    condition = field ("=" | "!=") value { "," value }
    field     = "thing" | "profile" | "label." NAME

A value may have the wildcards ``*`` and ``?``. With ``=`` one of the values must match, with
``!=`` none may; a label that a device does not have matches nothing. Conditions are joined by a
word and not by a sign of the shell's, because half a selector selects too much.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edge_sdk.errors import ConfigError
from edge_sdk.fleet.rollout.device import Device

ALL = "all"
_CONDITION = re.compile(r"(thing|profile|label\.[^\s=!,]+)(!?=)([^\s=!,\[\]]+(?:,[^\s=!,\[\]]+)*)")
_AND = re.compile(r"\s+and\s+")
_REMEDY = (
    "write all, or conditions such as thing=gw-1,gw-2  profile=arm64  label.site=ber*  joined by"
    " ' and '"
)


@dataclass(frozen=True)
class _Condition:
    value: Callable[[Device], str | None]
    wanted: bool
    patterns: tuple[str, ...]

    def holds(self, device: Device) -> bool:
        value = self.value(device)
        found = value is not None and any(fnmatchcase(value, p) for p in self.patterns)
        return found == self.wanted


@dataclass(frozen=True)
class Selector:
    """A choice of devices.

    Attributes:
        text: As it was written.
    """

    text: str
    _conditions: tuple[_Condition, ...]

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Reads a selector.

        Raises:
            ConfigError: It is none; the message has the part that is wrong.
        """
        if text.strip() == ALL:
            return cls(text, ())
        return cls(text, tuple(_condition(part) for part in _AND.split(text.strip())))

    def matches(self, device: Device) -> bool:
        """Whether a device is meant."""
        return all(condition.holds(device) for condition in self._conditions)


def _condition(part: str) -> _Condition:
    match = _CONDITION.fullmatch(part)
    if not match:
        raise ConfigError(f"{part!r} is no condition of a selector", remedy=_REMEDY)
    field, sign, values = match.groups()
    return _Condition(_reader(field), sign == "=", tuple(values.split(",")))


def _reader(field: str) -> Callable[[Device], str | None]:
    if field == "thing":
        return lambda device: device.thing
    if field == "profile":
        return lambda device: device.profile
    label = field.removeprefix("label.")
    return lambda device: device.labels.get(label)
