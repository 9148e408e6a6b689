"""The Python that a toolchain is built on: ours if it fits, else one that is found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from converters.toolchains.spec import Pythons
from edge_sdk.errors import ToolchainError

# Some distributions have a Python without the modules that make an environment.
_PROBE = "import ensurepip, sys, venv; print(*sys.version_info[:3])"
_SECONDS = 20


@dataclass(frozen=True)
class Interpreter:
    """A Python that can make environments.

    Attributes:
        path: Its executable.
        version: As ``(3, 12, 1)``.
    """

    path: Path
    version: tuple[int, int, int]

    def __str__(self) -> str:
        return ".".join(map(str, self.version))


def choose(pythons: Pythons, name: str) -> Interpreter:
    """The first Python that fits.

    Args:
        pythons: Versions that fit.
        name: The toolchain's, for messages.

    Raises:
        ToolchainError: There is none on this machine.
    """
    refused = []
    for path in dict.fromkeys(_places(pythons)):
        version, problem = _probe(path)
        if version is not None and version[:2] in pythons:
            return Interpreter(path, version)
        if version is None:
            refused.append(f"{path} ({problem})")
    minor = pythons.minimum[1]
    tried = f"; found but of no use: {', '.join(refused)}" if refused else ""
    raise ToolchainError(
        f"needs Python {pythons}, and none is on this machine{tried}",
        where=f"toolchain {name!r}",
        remedy=f"install one (apt install python3.{minor} python3.{minor}-venv, "
        f"`uv python install 3.{minor}` or `pyenv install 3.{minor}`); it is found on PATH, "
        "among pyenv's and uv's versions",
    )


def _places(pythons: Pythons) -> Iterator[Path]:
    """Executables to try: ours, those on PATH, pyenv's, uv's."""
    yield Path(sys.executable)
    for name in (*pythons.names(), "python3"):
        if found := shutil.which(name):
            yield Path(found)
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for name in pythons.names():
        version = name.removeprefix("python")
        yield from sorted(root.glob(f"versions/{version}.*/bin/python3"), reverse=True)
    if uv := shutil.which("uv"):
        found = _said([uv, "python", "find", str(pythons)])[0].strip()
        if found:
            yield Path(found)


def _probe(path: Path) -> tuple[tuple[int, int, int] | None, str]:
    """Its version, or why it cannot be used."""
    said, complaint = _said([str(path), "-I", "-c", _PROBE])
    numbers = said.split()
    if len(numbers) != 3:
        return None, complaint
    major, minor, micro = map(int, numbers)
    return (major, minor, micro), ""


def _said(command: list[str]) -> tuple[str, str]:
    """What a short command prints, and its last line of complaint."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    lines = done.stderr.strip().splitlines()
    return done.stdout if done.returncode == 0 else "", lines[-1] if lines else "no answer"
