"""Packages into an environment, with pip: pinned, told step by step, one error where it fails."""

from __future__ import annotations

import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from converters.toolchains.process import RUNNER, TAIL_LINES, Progress, started
from converters.toolchains.spec import Toolchain
from edge_sdk.errors import ToolchainError

_STEPS = re.compile(
    r"\s*(Collecting|Processing|Downloading|Installing collected packages:) (\S+)( \(.*\))?"
)
_BAR = 20


def install(
    python: Path,
    toolchain: Toolchain,
    progress: Progress,
    *,
    wheels: Path | None,
    keep: Sequence[int] = (),
) -> None:
    """Installs all packages of a toolchain.

    Args:
        python: The environment's Python.
        toolchain: What to install.
        progress: Told how far it is.
        wheels: A folder of wheels to take in place of any index.
        keep: Descriptors that pip inherits.

    Raises:
        ToolchainError: pip failed; the message ends in its own last lines.
    """
    tell = _teller(toolchain, progress)
    sources = ("--no-index", "-f", str(wheels.absolute())) if wheels else ()
    for step in toolchain.requirements:
        # What a step asks for itself is no constraint: pip would call its absence a conflict.
        others = [package for package in toolchain.packages if package not in step]
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
            pins.write("\n".join((*others, *toolchain.constraints)))
            pins.flush()
            arguments = (
                str(python), "-I", str(RUNNER), "pip", "install", "--progress-bar", "off",
                *sources, "--constraint", pins.name, *step,
            )  # fmt: skip
            _run(arguments, toolchain, tell, keep)


def _run(
    arguments: Sequence[str], toolchain: Toolchain, tell: Callable[[str], None], keep: Sequence[int]
) -> None:
    said: deque[str] = deque(maxlen=200)
    with tempfile.TemporaryFile() as stderr:
        with started(arguments, stderr, keep=keep) as (process, lines):
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            for line in lines:
                said.append(line.decode(errors="replace").rstrip())
                tell(said[-1])
        if process.returncode == 0:
            return
        complaints = list(_complaints(said, stderr))
    raise ToolchainError(
        "pip failed; nothing was kept" + "".join(f"\n  | {line}" for line in complaints),
        where=f"toolchain {toolchain.name!r}",
        remedy="see that the package index is reached (network, proxy, PIP_INDEX_URL) and that "
        f"{tempfile.gettempdir()} has space; without a network: collect the wheels with "
        "`pip download` elsewhere, then `edge-sdk toolchain install "
        f"{toolchain.name} --from-wheels DIR` or PIP_FIND_LINKS=DIR",
    )


def _complaints(said: Sequence[str], stderr: IO[bytes]) -> Iterator[str]:
    """What pip was doing at last, then its errors."""
    stderr.seek(0)
    errors = stderr.read().decode(errors="replace").strip().splitlines()
    yield from list(said)[-2:]
    yield from errors[-TAIL_LINES:]


def _teller(toolchain: Toolchain, progress: Progress) -> Callable[[str], None]:
    """Turns pip's lines into how far it is; each package is collected once."""
    expected = len({_name(pin) for pin in (*toolchain.packages, *toolchain.constraints)})
    seen: set[str] = set()

    def tell(line: str) -> None:
        step = _STEPS.match(line)
        if step is None:
            return
        what, word, size = step.groups()
        if what == "Collecting":
            seen.add(_name(word))
        elif what == "Processing":  # a wheel of a folder
            word = Path(word).name
            seen.add(_name(word.partition("-")[0]))
        total = max(expected, len(seen))
        doing = "unpacking" if what.startswith("Installing") else f"{what.lower()} {word}"
        done = f"{bar(len(seen), total)} {len(seen)} of {total} packages"
        progress(f"toolchain {toolchain.name} {done}: {doing}{size or ''}")

    return tell


def bar(done: int, total: int) -> str:
    """A bar of text: ``▕█████     ▏``."""
    full = _BAR * done // max(total, 1)
    return f"▕{'█' * full}{' ' * (_BAR - full)}▏"


def _name(requirement: str) -> str:
    """The name of a package, as indexes compare them."""
    name = re.split(r"[<>=!~;\[\s(]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()
