"""``edge-sdk demo`` from the checkout, and the files it needs in a wheel."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.cli.demo.processes import Children
from edge_sdk.errors import FleetError
from tests.cli.conftest import edge_sdk
from tests.transport.waiting import until

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> SimpleNamespace:
    """The whole story once, as people read it; its JSON is made of the same values."""
    folder = tmp_path_factory.mktemp("demo") / "new"
    done = edge_sdk("demo", "--out", folder)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(folder=folder, text=done.stdout)


def test_three_versions_are_made_and_the_broken_one_is_intact_too(demo):
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        bundle = open_bundle(demo.folder / f"assistant-{version}.bundle")
        bundle.verify()
        assert bundle.version == version
        assert {"x86-64", "arm64", "board-512mb"} <= {v.profile for v in bundle.variants}


def test_all_devices_end_with_the_tuned_version_and_its_store_is_whole(demo):
    for thing in ("gateway-1", "gateway-2", "board-1"):
        store = Store(demo.folder / thing)
        assert "1.2.0" in {entry.version for entry in store.ls()}
        assert "1.1.0" not in {entry.version for entry in store.ls()}
        assert not list(store.verify())


def test_people_read_how_each_version_fared(demo):
    chapters = demo.text.split("\n1. ")[-1].split("\n\n3. ")[1]
    first, rest = chapters.split("\n4. ")
    broken, tuned = rest.split("\n5. ")
    assert "runs on 3 of 3 devices" in first
    assert "aborted" in broken
    assert "times the tolerance" in broken
    assert answers(broken) == answers(first), "the old version went on answering"
    assert "board-1    offline" in tuned
    assert "runs on 3 of 3 devices" in tuned
    assert len(answers(tuned)) == 3


def answers(chapter: str) -> list[str]:
    """What the devices answered, with the version that did."""
    lines = [line.strip() for line in chapter.splitlines()]
    asked = [n for n, line in enumerate(lines) if line.startswith("> ") and ", 1." in lines[n - 1]]
    return [f"{lines[n - 1].rpartition(',')[0]}: {lines[n + 1]}" for n in asked]


def test_a_tuned_layer_costs_less_than_half_of_the_model(demo):
    table = demo.text.partition("What each device fetched:")[2].split("\n\n")[1].splitlines()[1:]
    shares = [int(line.split()[-1].rstrip("%")) for line in table]
    assert len(shares) == 3
    assert all(0 < share < 50 for share in shares)


def test_no_process_stays_and_all_ended_well(demo):
    assert not list(processes_in(demo.folder))
    for log in demo.folder.glob("*.log"):
        assert "Traceback" not in log.read_text()
    for thing in ("gateway-1", "gateway-2", "board-1"):
        assert (demo.folder / f"{thing}.log").read_text().endswith(" ends\n")


def processes_in(folder: Path) -> Iterator[int]:
    """Processes whose current folder it is."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cwd").samefile(folder) and (entry / "cmdline").read_bytes():
                yield int(entry.name)


def test_what_to_try_next_works_when_pasted(demo):
    lines = demo.text.partition("Try next:")[2].strip().splitlines()
    assert "fleet serve" in lines[-1]
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(lines[:-1])], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


RUNNING = """
import sys, time
from pathlib import Path
from edge_sdk.cli.demo.fleet import Fleet
from edge_sdk.cli.demo.processes import Children
folder = Path(sys.argv[1])
with Children(folder) as children:
    fleet = Fleet(folder, children, [("t", "x86-64", "here")])
    fleet.start(fleet.devices[0])
    fleet.wait_for("t", "its first sign of life", lambda view: view.online)
    print("running", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_a_demo_that_is_ended(tmp_path, number):
    command = [sys.executable, "-c", RUNNING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        assert process.stdout.readline() == b"running\n"
        assert len(list(processes_in(tmp_path))) >= 2, "server and agent"
        os.kill(process.pid, number)
        process.wait(60)
    until(lambda: not list(processes_in(tmp_path)))


def test_a_process_that_ends_by_itself_is_told_of_with_its_log(tmp_path):
    with Children(tmp_path) as children, pytest.raises(FleetError) as caught:
        children.start("server", "fleet", "serve", "--http", "nowhere")
        children.wait("the server", lambda: None)
    assert "'nowhere' is not host:port" in caught.value.message
    assert caught.value.where == str(tmp_path / "server.log")


def test_what_does_not_come_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_sdk.cli.demo.processes.PATIENCE", 0.0)
    with Children(tmp_path) as children, pytest.raises(FleetError) as caught:
        children.start("server", "fleet", "serve", "--data", "fleet", "--http", "127.0.0.1:0")
        children.wait("the moon", lambda: None)
    assert caught.value.where == "the moon"
    assert str(tmp_path / "server.log") in (caught.value.remedy or "")


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "mine.txt").touch()
    done = edge_sdk("demo", "--out", tmp_path)
    assert done.returncode == 2
    assert "new folder" in done.stderr


def test_a_wheel_carries_the_model_and_its_data(tmp_path):
    tree = shutil.copytree(
        ROOT, tmp_path / "tree", symlinks=True,
        ignore=shutil.ignore_patterns(".*", "build", "tests", "benchmarks", "*.egg-info"),
    )  # fmt: skip
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path]
    subprocess.run([*pip, *offline, tree], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    source = ROOT / "examples" / "assistant"
    with zipfile.ZipFile(wheel) as archive:
        for file in (source / "calibration.jsonl", *(source / "model").iterdir()):
            name = file.relative_to(source)
            assert archive.read(f"edge_sdk/demo_data/{name}") == file.read_bytes()
