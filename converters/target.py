"""Which of a profile's engines candidates are made for, in which file format.

A candidate is a graph in one of the formats that we write. On this machine each
format is run by one engine of our own, whatever engine it is meant for: another
vendor's engine that reads ONNX graphs is compared on ONNX Runtime, and what it
gains in speed is the profile's word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from device_profiles.machine import Machine
from device_profiles.schema import EngineChoice, Profile
from edge_sdk.errors import ConversionError, MissingEngineError
from edge_sdk.runtime.engine import find_engine

Format = Literal["onnx", "tflite"]

HOST_ENGINES: Mapping[Format, str] = {"onnx": "onnx", "tflite": "litert"}
"""Format -> the engine that runs it on this machine. The source is an ONNX graph."""


@dataclass(frozen=True)
class Target:
    """One engine of a profile, and the format that its candidates have.

    Attributes:
        choice: The engine, with the profile's options.
        format: What it reads.
    """

    choice: EngineChoice
    format: Format

    def named(self, recipe: str) -> str:
        """A recipe's name for this engine; the bare one is for the form that sources have."""
        return recipe if self.format == "onnx" else f"{recipe}@{self.choice.name}"

    @property
    def runs_here(self) -> bool:
        """Whether its candidates can be compared on this machine."""
        return find_engine(HOST_ENGINES[self.format]).version() is not None

    def decides(self, profile: Profile, here: Machine) -> bool:
        """Whether speed measured here is the device's: the same engine, provider and ISA."""
        host = HOST_ENGINES[self.format]
        found = next((engine for engine in here.engines if engine.name == host), None)
        providers = self.choice.providers
        return (
            found is not None
            and self.choice.name == host
            and profile.platform.architecture == here.platform.architecture
            and set(profile.cpu.isa) <= here.isa
            and (not providers or providers[0] in found.providers)
        )


def targets(profile: Profile) -> tuple[Target, ...]:
    """What variants for a profile may be made for: its first engine for each format we write.

    Raises:
        ConversionError: None of its engines is registered here and reads such a format.
    """
    found: dict[Format, Target] = {}
    for choice in profile.engines:
        written = format_of(choice.name)
        if written is not None:
            found.setdefault(written, Target(choice, written))
    if not found:
        raise _none(profile, " or ".join(HOST_ENGINES))
    return tuple(found.values())


def onnx_engine(profile: Profile) -> EngineChoice:
    """The profile's first engine that runs ONNX graphs; dialogue models have no other form.

    Raises:
        ConversionError: It has none.
    """
    for choice in profile.engines:
        if format_of(choice.name) == "onnx":
            return choice
    raise _none(profile, "onnx")


def format_of(engine: str) -> Format | None:
    """The format that candidates for an engine have; ``None`` if it is not registered here."""
    try:
        formats = find_engine(engine).formats
    except MissingEngineError:
        return None
    return next((known for known in HOST_ENGINES if known in formats), None)


def _none(profile: Profile, wanted: str) -> ConversionError:
    return ConversionError(
        f"none of its engines is registered here and reads {wanted}: "
        + ", ".join(choice.name for choice in profile.engines),
        where=f"profile {profile.name!r}",
        remedy="leave this profile out, or install the package of its engine",
    )
