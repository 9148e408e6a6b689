"""Programs in a toolchain's environment: started apart from ours, and never outliving us.

Each is a process group of its own that holds our end of its stdin. Whatever ends us, an
exception, Ctrl-C or SIGKILL, ends the whole group too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from converters.toolchains.runner import SCHEMA
from edge_sdk.errors import ToolchainError

Progress = Callable[[str], None]

RUNNER = Path(__file__).with_name("runner.py")
TAIL_LINES = 12
_GRACE_SECONDS = 2.0
# What would lead pip or Python out of the environment. `-I` covers PYTHON*, but children
# that a library starts do not get it.
_FOREIGN = ("PYTHON", "VIRTUAL_ENV", "CONDA_", "PIPENV_", "POETRY_", "__PYVENV")
_PIP_ELSEWHERE = frozenset(
    f"PIP_{name}"
    for name in (
        "TARGET", "PREFIX", "ROOT", "USER", "PYTHON", "REQUIREMENT", "CONSTRAINT", "EDITABLE",
        "REQUIRE_VIRTUALENV", "NO_DEPS", "DRY_RUN", "REPORT", "QUIET", "PRE", "LOG",
    )
)  # fmt: skip


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One line that a tool answers: how far it is, or its result."""

    schema: str
    progress: str | None = None
    result: dict[str, Any] | None = None


def clean_environment() -> dict[str, str]:
    """Our environment variables without those that point to another Python."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN) and name not in _PIP_ELSEWHERE
    }
    return kept | {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def call(
    python: Path,
    script: Path,
    tool: str,
    request: Mapping[str, Any],
    progress: Progress,
    *,
    where: str,
    timeout: float | None,
    keep: Sequence[int] = (),
) -> dict[str, Any]:
    """Calls one function of a script in another environment.

    Args:
        python: The environment's Python.
        script: The file.
        tool: The function.
        request: What it is given: whatever JSON can say.
        progress: Told what the function says.
        where: The toolchain, for messages.
        timeout: Seconds that it may take; any number where ``None``.
        keep: Descriptors that the process inherits, for locks that it holds with us.

    Returns:
        What the function returned.

    Raises:
        ToolchainError: It failed, took too long or did not answer.
    """
    result = None
    with tempfile.TemporaryFile() as stderr:
        arguments = [str(python), "-I", str(RUNNER), "call", str(script), tool]
        with started(arguments, stderr, keep=keep, timeout=timeout) as (process, lines):
            _ask(process, request)
            for line in lines:
                answer = _parse(line, where)
                if answer.progress is not None:
                    progress(answer.progress)
                result = answer.result if answer.result is not None else result
        said = tail(stderr)
    if process.returncode == 0 and result is not None:
        return result
    raise ToolchainError(
        f"{tool!r} {_ending(process.returncode, timeout)}{said}",
        where=where,
        remedy="read what it says above; `edge-sdk toolchain rm` and `install` build it anew",
    )


@contextmanager
def started(
    arguments: Sequence[str],
    stderr: IO[bytes] | int,
    *,
    keep: Sequence[int] = (),
    timeout: float | None = None,
) -> Iterator[tuple[subprocess.Popen[bytes], Iterator[bytes]]]:
    """A process group and the lines of its stdout; it has ended when the block ends.

    Args:
        arguments: The command.
        stderr: Where its stderr goes.
        keep: Descriptors that it inherits.
        timeout: Seconds after which it is killed.
    """
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=clean_environment(),
        start_new_session=True,  # Ctrl-C in a terminal is ours to handle
        pass_fds=tuple(keep),
    )
    timer = threading.Timer(timeout or 0, _signal, (process, signal.SIGKILL))
    timer.daemon = True
    if timeout is not None:
        timer.start()
    try:
        with process:
            assert process.stdout is not None
            try:
                yield process, iter(process.stdout)
                process.wait()
            except BaseException:
                _end(process)
                raise
    finally:
        timer.cancel()


def tail(file: IO[bytes]) -> str:
    """The last lines of what a program said, indented below a message."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
    lines = file.read().decode(errors="replace").strip().splitlines()[-TAIL_LINES:]
    return "".join(f"\n  | {line}" for line in lines)


def _ask(process: subprocess.Popen[bytes], request: Mapping[str, Any]) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it ended before; its exit code says how
        process.stdin.write(msgspec.json.encode({"schema": SCHEMA, "request": request}) + b"\n")
        process.stdin.flush()


def _parse(line: bytes, where: str) -> Answer:
    try:
        answer = msgspec.json.decode(line, type=Answer)
    except msgspec.MsgspecError as error:
        raise ToolchainError(f"answered {line[:80]!r}: {error}", where=where) from None
    if answer.schema != SCHEMA:
        raise ToolchainError(f"answers in {answer.schema}, {SCHEMA} is expected", where=where)
    return answer


def _ending(code: int, timeout: float | None) -> str:
    if code == -signal.SIGKILL:
        hint = f"it may take {timeout:g} s" if timeout is not None else "was memory short?"
        return f"was killed ({hint})"
    return f"failed with exit code {code}" if code else "gave no result"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the group, and its last member where the first is gone already."""
    _signal(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
