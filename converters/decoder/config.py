"""A model's configuration, read field by field; what is wrong is named by its field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_sdk.errors import SourceError


@dataclass(frozen=True)
class Config:
    """Content of ``config.json``, or of an object within it.

    Attributes:
        values: The JSON object.
        where: Its file, for messages.
        prefix: Name of the object within the file, with a dot.
    """

    values: Mapping[str, Any]
    where: str
    prefix: str = ""

    def integer(self, field: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number, positive unless ``least`` says otherwise."""
        value = self._given(field, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.wrong(field, f"must be a whole number from {least} up")
        return value

    def number(self, field: str, default: float | None = None) -> float:
        """A positive number."""
        value = self._given(field, default)
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if not (numeric and 0 < value < math.inf):
            raise self.wrong(field, "must be a positive number")
        return float(value)

    def numbers(self, field: str) -> tuple[float, ...]:
        """A list of numbers."""
        value = self._given(field, None)
        if not isinstance(value, list) or not all(isinstance(item, int | float) for item in value):
            raise self.wrong(field, "must be a list of numbers")
        return tuple(float(item) for item in value)

    def flag(self, field: str, default: bool) -> bool:
        """``true`` or ``false``."""
        value = self._given(field, default)
        if not isinstance(value, bool):
            raise self.wrong(field, "must be true or false")
        return value

    def choice(self, field: str, choices: Sequence[str], default: str | None = None) -> str:
        """One of these texts."""
        value = self._given(field, default)
        if value not in choices:
            raise self.wrong(field, "is not supported", f"supported: {', '.join(choices)}")
        return str(value)

    def has(self, field: str) -> bool:
        """Whether the field is there and not ``null``."""
        return self.values.get(field) is not None

    def part(self, field: str) -> Config:
        """The object in a field; an empty one where it is absent or ``null``."""
        value = self.values.get(field) or {}
        if not isinstance(value, dict):
            raise self.wrong(field, "must be an object")
        return Config(value, self.where, f"{self.prefix}{field}.")

    def wrong(self, field: str, message: str, remedy: str | None = None) -> SourceError:
        """The error to raise for a field."""
        shown = repr(self.values.get(field))
        shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
        return SourceError(
            f"{self.prefix}{field} = {shown} {message}", where=self.where, remedy=remedy
        )

    def _given(self, field: str, default: Any) -> Any:
        value = self.values.get(field)
        if value is None:
            value = default
        if value is None:
            raise SourceError(
                f"{self.prefix}{field} is missing",
                where=self.where,
                remedy="give the configuration that the model was published with",
            )
        return value
