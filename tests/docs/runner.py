"""Runs the blocks of a documentation page as its reader would, in order, in one folder.

- In a ``console`` block, each line that begins with ``$`` is run by bash. A command must
  succeed, unless the output that the page shows is an error message: then it must fail.
- Output that the page shows must come: stdout, or the message of an error. A line ``...``
  stands for any lines, ``...`` within a line for any text. A number stands for any number,
  a run of spaces for any run of spaces, because measurements differ from run to run.
- A ``python`` block is executed, with the names of the blocks before it. Where a block of any
  kind begins with a comment that is a file's name, it is written to that file instead.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# They install things or take minutes.
NOT_RUN = ("make ", "pip ", "python -m benchmarks")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# ([\w.-]+\.\w+)\b")
ERROR = re.compile(r"^edge-sdk \S+: error: ", re.MULTILINE)
# Not the figures in int8, x86-64 or Conv_1.
NUMBER = re.compile(r"\b[0-9a-f]{12,}\b|(?<![\w.-])-?\d+(\.\d+)?(e[-+]\d+)?")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page.

    Attributes:
        kind: The language it is marked with.
        text: What is between the fences.
        where: Page and line, for messages.
    """

    kind: str
    text: str
    where: str


@dataclass(frozen=True)
class Command:
    """One command and the output that the page shows, if it shows any."""

    line: str
    shown: str
    where: str

    @property
    def program(self) -> str:
        return self.line.split()[0]


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, given by its path from the repository's root."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        yield Block(found[1], found[2], f"{page}:{text.count(chr(10), 0, found.start()) + 2}")


def commands(block: Block) -> Iterator[Command]:
    """The commands of a ``console`` block; one may go on after a backslash."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        line, _, shown = part.replace("\\\n", "").partition("\n")
        yield Command(line, shown, block.where)


def run_page(page: str, names: Mapping[str, Any] | None = None, without: str = "") -> None:
    """Runs a page's blocks in the current folder.

    Args:
        page: Its path from the repository's root.
        names: What the page's Python may use without defining it.
        without: A program whose commands are left out.
    """
    scope: dict[str, Any] = dict(names or {})
    for block in blocks(page):
        if found := FILE.match(block.text):
            Path(found[1]).write_text(block.text, encoding="utf-8")
        elif block.kind == "python":
            # Lines of the page, so that a traceback shows where.
            exec(compile(block.text, block.where, "exec"), scope)
        elif block.kind == "console":
            for command in commands(block):
                if command.program != without:
                    run_command(command)


def run_command(command: Command) -> None:
    """Runs one command in the current folder, and compares."""
    if command.line.startswith(NOT_RUN):
        return
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", command.line],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        timeout=300,
    )
    said = f"{command.where}: {command.line}\n{done.stdout}{done.stderr}"
    if error := ERROR.match(command.shown):
        assert done.returncode in (1, 2), f"should have failed: {said}"
        found = done.stderr[done.stderr.find(error[0]) :]
    else:
        assert done.returncode == 0, said
        found = done.stdout
    assert matches(command.shown, found), f"the page shows\n{command.shown}\nthere came {said}"


def matches(shown: str, found: str) -> bool:
    """Whether output is what a page shows, where it shows any."""
    if not shown.strip():
        return True
    lines = [_pattern(line) for line in shown.strip().splitlines()]
    return re.fullmatch("".join(lines), _plain(found.strip()) + "\n") is not None


def _pattern(line: str) -> str:
    if line.strip() == "...":
        return r"(?:.*\n)*?"
    return ".*".join(re.escape(part) for part in _plain(line).split("...")) + r"\n"


def _plain(text: str) -> str:
    lines = (re.sub(r"[ \t]+", " ", line).strip() for line in text.splitlines())
    return "\n".join(NUMBER.sub("0", line) for line in lines)
