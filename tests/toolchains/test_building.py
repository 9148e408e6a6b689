"""Environments are whole or not there, whoever builds them, whatever interrupts that."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from converters.toolchains import Environment, Pythons
from converters.toolchains.environment import MARKER, leftovers, remove
from edge_sdk.errors import EdgeSdkError, ToolchainError
from tests.toolchains.conftest import TINY, changed
from tests.toolchains.test_calls import alive, processes, quiet, start
from tests.transport.waiting import until

pytestmark = pytest.mark.converts

BUILDING = "toolchain 'tiny': building its environment on Python"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*")}


def test_an_environment_is_built_on_first_use_and_then_kept(offline: Path) -> None:
    environment, said = Environment(TINY), []
    assert environment.state == "absent"
    assert environment.call("look", {}, said.append)["answer"] == 42
    assert any(line.startswith(BUILDING) for line in said)
    assert any("1 of 1 packages" in line for line in said)
    assert environment.state == "installed"
    assert "tinytool==1.0" in environment.marker.packages
    said.clear()
    environment.call("look", {}, said.append)
    assert said == ["half way"]


def test_other_pins_are_another_environment(offline: Path) -> None:
    other = changed(requirements=(("tinytool==2.0",),))
    assert Environment(other).folder != Environment(TINY).folder
    assert Environment(changed(script=Path("x"))).folder == Environment(TINY).folder


def test_wheels_of_a_folder_need_no_index(
    offline: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    Environment(TINY).install(quiet, wheels)
    assert Environment(TINY).state == "installed"


def test_what_pip_says_is_in_the_error_and_nothing_stays(
    offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = Environment(changed(requirements=(("tinytool==1.0",), ("absent-tool==3",))))
    with pytest.raises(ToolchainError, match=r"No matching distribution.*absent-tool==3") as caught:
        environment.install(quiet)
    assert "--from-wheels" in str(caught.value.remedy)
    assert environment.state == "absent"
    assert names(offline / "toolchains") == {f"{environment.folder.name}.lock"}


def test_pips_own_settings_cannot_lead_it_elsewhere(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TARGET", "PREFIX", "ROOT"):
        monkeypatch.setenv(f"PIP_{name}", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PIP_REQUIRE_VIRTUALENV", "1")
    assert Environment(TINY).call("look", {}, quiet)["answer"] == 42
    assert not (tmp_path / "elsewhere").exists()


def test_a_lack_of_space_is_said_before_anything_is_written(offline: Path) -> None:
    environment = Environment(changed(size_bytes=10**18))
    with pytest.raises(ToolchainError, match=r"needs about 1500000000.0 GB") as caught:
        environment.install(quiet)
    assert "EDGE_SDK_CACHE" in str(caught.value.remedy)
    assert environment.state == "absent"


def test_a_missing_python_is_named_with_what_to_install(offline: Path) -> None:
    environment = Environment(changed(python=Pythons((3, 99), (3, 100))))
    with pytest.raises(ToolchainError, match=r"needs Python >=3.99,<3.100") as caught:
        environment.install(quiet)
    assert "apt install python3.99" in str(caught.value.remedy)


@pytest.mark.parametrize("damage", ["marker", "python"])
def test_a_torn_environment_is_built_anew(installed: Environment, damage: str) -> None:
    assert installed.state == "installed"
    (installed.folder / "rest").touch()
    if damage == "marker":
        (installed.folder / MARKER).write_text("{")
    else:  # uninstalled by the system
        installed.python.unlink()
    assert installed.state == "torn"
    assert installed.call("look", {}, quiet)["answer"] == 42
    assert not (installed.folder / "rest").exists()


def test_a_build_that_was_killed_is_built_anew(offline: Path) -> None:
    environment = Environment(TINY)
    for moment in ("building", "unpacking", "checking"):
        with start("look", {}) as caller:
            assert caller.stdout is not None
            while moment not in (line := caller.stdout.readline()):
                assert line, f"it never came to {moment}"
            os.kill(caller.pid, signal.SIGKILL)
        assert caller.returncode == -signal.SIGKILL
        assert environment.state != "installed"
    assert environment.call("look", {}, quiet)["answer"] == 42


def test_two_processes_build_one_environment(offline: Path) -> None:
    with start("look", {}) as first:
        assert first.stdout is not None
        assert first.stdout.readline().startswith(BUILDING)
        with start("look", {}) as second:
            said, other = first.stdout.read(), second.communicate()[0]
    assert (first.returncode, second.returncode) == (0, 0)
    assert '"answer": 42' in said
    assert '"answer": 42' in other
    assert "waiting for another process" in other
    assert BUILDING not in other


def test_what_is_in_use_is_not_removed(installed: Environment, tmp_path: Path) -> None:
    file = tmp_path / "ids"
    with start("sleep", {"file": str(file)}) as caller:
        assert caller.stdout is not None
        while caller.stdout.readline() != "asleep\n":
            assert caller.poll() is None
        with pytest.raises(ToolchainError, match="is in use"):
            remove(installed.folder)
        caller.terminate()
    until(lambda: not any(map(alive, processes(file))))  # they hold the lock a moment longer
    assert installed.state == "installed"
    assert remove(installed.folder) > 0
    assert installed.state == "absent"


def test_environments_of_other_pins_are_found_as_leftovers(installed: Environment) -> None:
    new = Environment(changed(constraints=("x==1",)))
    assert leftovers([new]) == (installed.folder,)
    assert leftovers([new, installed]) == ()


def test_what_a_tool_made_is_made_once(installed: Environment) -> None:
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "result").write_text("made")

    first, second = (installed.cached("key", make, quiet) for _ in range(2))
    assert first == second
    assert (first / "result").read_text() == "made"
    assert len(calls) == 1
    assert installed.cached("other", make, quiet) != first


def test_what_failed_to_be_made_leaves_nothing(installed: Environment) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise EdgeSdkError("no")

    with pytest.raises(EdgeSdkError):
        installed.cached("key", fail, quiet)
    assert [path.suffix for path in (installed.folder / "cache").iterdir()] == [".lock"]
