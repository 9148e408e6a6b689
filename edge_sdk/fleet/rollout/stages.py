"""How fast a version reaches its devices: ``5,25,100`` percent, or ``10/min``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from edge_sdk.errors import ConfigError

DEFAULT = "5,25,100"
_RATE = re.compile(r"(\d+(?:\.\d+)?)/(s|min|h)")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Stages:
    """Shares of the devices, each waited for before the next; or a steady pace.

    Attributes:
        percents: Share of the devices after each stage, rising to 100.
        rate: Devices per second, where there is one stage at a steady pace.
    """

    percents: tuple[float, ...] = (100.0,)
    rate: float | None = None

    @classmethod
    def parse(cls, text: str) -> Stages:
        """Reads ``5,25,100`` or ``10/min`` (also ``/s`` and ``/h``).

        Raises:
            ConfigError: It is neither, or the percents do not rise to 100.
        """
        if match := _RATE.fullmatch(text):
            rate = float(match[1]) / _SECONDS[match[2]]
            if rate > 0:
                return cls(rate=rate)
        try:
            percents = tuple(map(float, text.split(",")))
        except ValueError:
            percents = ()
        rising = all(low < high for low, high in zip((0.0, *percents), percents, strict=False))
        if not percents or not rising or percents[-1] != 100:
            raise ConfigError(
                f"{text!r} are no stages",
                remedy="write percents that rise to 100, such as 5,25,100, or a rate: 10/min",
            )
        return cls(percents)

    def sizes(self, devices: int) -> tuple[int, ...]:
        """How many of the devices are asked after each stage; every stage adds at least one."""
        counts = (math.ceil(devices * percent / 100) for percent in self.percents)
        return tuple(dict.fromkeys(counts)) if devices else ()
