"""Tools run in an environment of their own, answer in JSON, and do not outlive their caller."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from converters.toolchains import Environment
from edge_sdk.errors import ToolchainError
from tests.transport.waiting import until

pytestmark = pytest.mark.converts


def quiet(message: str) -> None:
    pass


def test_a_tool_sees_its_own_packages_and_nothing_of_the_callers(
    installed: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "tinytool.py").write_text("ANSWER = 'foreign'")
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, str(foreign))
    monkeypatch.chdir(foreign)
    said: list[str] = []
    found = installed.call("look", {"α": [1, None]}, said.append)
    assert (found["given"], found["answer"], said) == ({"α": [1, None]}, 42, ["half way"])
    assert found["prefix"] == str(installed.folder)
    ours = [p for p in sys.path if p.endswith("site-packages")]
    assert ours
    assert not {str(foreign), "", *ours} & set(found["path"])
    assert not {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"} & set(found["variables"])


def test_what_a_tool_raises_is_in_the_error(installed: Environment) -> None:
    with pytest.raises(ToolchainError, match="RuntimeError: the layer is missing") as caught:
        installed.call("fail", {}, quiet)
    assert caught.value.where == "toolchain 'tiny'"


@pytest.mark.parametrize(("tool", "said"), [("disappear", "gave no result"), ("no", "'no'")])
def test_a_tool_that_does_not_answer_is_an_error(
    installed: Environment, tool: str, said: str
) -> None:
    with pytest.raises(ToolchainError, match=said):
        installed.call(tool, {}, quiet)


def processes(file: Path) -> list[int]:
    return [int(word) for word in file.read_text().split()]


def alive(process: int) -> bool:
    """Whether it still runs; a zombie does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_a_tool_that_takes_too_long_is_killed_with_its_children(
    installed: Environment, tmp_path: Path
) -> None:
    file = tmp_path / "ids"
    with pytest.raises(ToolchainError, match=r"it may take 2 s"):
        installed.call("sleep", {"file": str(file)}, quiet, timeout=2)
    until(lambda: not any(map(alive, processes(file))))


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_caller_ends_the_tool_and_its_children(
    installed: Environment, tmp_path: Path, exception: type[BaseException]
) -> None:
    file = tmp_path / "ids"

    def interrupt(_: str) -> None:
        assert all(map(alive, processes(file)))
        raise exception

    with pytest.raises(exception):
        installed.call("sleep", {"file": str(file)}, interrupt)
    until(lambda: not any(map(alive, processes(file))))


Start = Callable[[str, object], "subprocess.Popen[str]"]


def start(tool: str, request: object) -> subprocess.Popen[str]:
    """A caller that is a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.toolchains.caller", tool, json.dumps(request)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_caller_takes_the_tool_along(installed: Environment, tmp_path: Path) -> None:
    file = tmp_path / "ids"
    with start("sleep", {"file": str(file)}) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "asleep\n"
        assert all(map(alive, processes(file)))
        os.kill(caller.pid, signal.SIGKILL)
    until(lambda: not any(map(alive, processes(file))))
