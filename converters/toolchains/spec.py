"""What a toolchain is: a description that anybody can give, and nothing that happens."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec


class Pythons(msgspec.Struct, frozen=True):
    """Versions of Python that a toolchain runs on.

    Attributes:
        minimum: The first one, as ``(3, 12)``.
        below: The first one that is too new.
    """

    minimum: tuple[int, int]
    below: tuple[int, int]

    def __contains__(self, version: tuple[int, int]) -> bool:
        return self.minimum <= version < self.below

    def __str__(self) -> str:
        (major, minor), (past_major, past_minor) = self.minimum, self.below
        return f">={major}.{minor},<{past_major}.{past_minor}"

    def names(self) -> tuple[str, ...]:
        """Names of their commands, the newest first."""
        minors = range(self.below[1] - 1, self.minimum[1] - 1, -1)
        return tuple(f"python{self.minimum[0]}.{minor}" for minor in minors)


class Toolchain(msgspec.Struct, frozen=True, kw_only=True):
    """An environment and the program that runs in it.

    Attributes:
        name: What it is found by.
        title: What it is for, in a few words.
        python: What it runs on.
        requirements: Pinned packages, in the order in which they are installed; one call of pip
            each, so that what a later one drags in cannot replace an earlier one.
        constraints: Pins of what these depend on.
        script: A Python file that runs inside: each public function is a tool that takes a
            request (a dictionary) and ``progress`` (takes a line of text), and gives a dictionary.
        size_bytes: About what it takes on disk.
    """

    name: str
    title: str
    python: Pythons
    requirements: tuple[tuple[str, ...], ...]
    script: Path
    size_bytes: int
    constraints: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of what decides which packages there are; another digest is another environment."""
        pins = (str(self.python), self.requirements, self.constraints)
        return hashlib.sha256(msgspec.json.encode(pins)).hexdigest()

    @property
    def packages(self) -> tuple[str, ...]:
        """All packages that are asked for by name."""
        return tuple(package for step in self.requirements for package in step)
