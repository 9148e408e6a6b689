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

import msgspec
import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.cli.demo import _try_next
from edge_sdk.cli.demo.processes import Children
from edge_sdk.cli.demo.result import DemoResult
from edge_sdk.errors import FleetError
from tests.cli.conftest import edge_sdk
from tests.transport.waiting import until

ROOT = Path(__file__).parents[2]
ASKS_BACK = " Anything else?"


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> SimpleNamespace:
    """The whole story once: its JSON, and what people would read."""
    folder = tmp_path_factory.mktemp("demo") / "new"
    done = edge_sdk("demo", "--out", folder, "--json")
    assert done.returncode == 0, done.stderr
    result = msgspec.json.decode(done.stdout, type=DemoResult)
    assert result.folder == str(folder)
    return SimpleNamespace(folder=folder, result=result, text=done.stderr)


def test_three_versions_are_made_and_the_broken_one_is_intact_too(demo):
    assert [made.version for made in demo.result.bundles] == ["1.0.0", "1.1.0", "1.2.0"]
    for made in demo.result.bundles:
        bundle = open_bundle(made.path)
        bundle.verify()
        assert bundle.version == made.version
        assert {"x86-64", "arm64", "board-512mb"} <= {v.profile for v in bundle.variants}
        assert made.size_bytes < made.unshared_bytes


def test_all_devices_end_with_the_tuned_version_and_their_stores_are_whole(demo):
    for device in demo.result.devices:
        store = Store(demo.folder / device.thing)
        versions = {entry.version for entry in store.ls()}
        assert device.version == "1.2.0" in versions
        assert "1.1.0" not in versions
        assert not list(store.verify())


def test_the_broken_version_goes_back_by_itself_and_the_old_one_answers_on(demo):
    outcomes = [(one.version, one.status) for one in demo.result.rollouts]
    assert outcomes == [("1.0.0", "completed"), ("1.1.0", "aborted"), ("1.2.0", "completed")]
    assert "self-test" in demo.result.rollouts[1].note
    first, again, tuned = (demo.result.answers[n : n + 3] for n in (0, 3, 6))
    assert [a.answer for a in again] == [a.answer for a in first]
    assert {a.version for a in (*first, *again)} == {"1.0.0"}
    assert {a.version for a in tuned} == {"1.2.0"}
    assert not any(a.answer.endswith(ASKS_BACK) for a in first)
    assert all(a.answer.endswith(ASKS_BACK) for a in tuned), "what it was tuned to"


def test_a_tuned_layer_costs_less_than_half_of_the_model(demo):
    assert len(demo.result.devices) == 3
    for device in demo.result.devices:
        assert 0 < device.tuned_bytes < device.first_bytes / 2


def test_people_read_what_happens(demo):
    for said in (
        "$ edge-sdk fleet deploy assistant:1.1.0",
        "completed, stage 2/2 (3 done): runs on 3 of 3 devices",
        "board-1    offline",
        "times the tolerance",
        "What each device fetched:",
        *(variant.recipe for variant in demo.result.bundles[0].variants),
        *(answer.answer for answer in demo.result.answers),
    ):
        assert said in demo.text


def test_no_process_stays_and_all_ended_well(demo):
    assert not list(processes_in(demo.folder))
    for log in demo.folder.glob("*.log"):
        assert "Traceback" not in log.read_text()
    for device in demo.result.devices:
        assert (demo.folder / f"{device.thing}.log").read_text().endswith(" ends\n")


def processes_in(folder: Path) -> Iterator[int]:
    """Processes whose current folder it is."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cwd").samefile(folder) and (entry / "cmdline").read_bytes():
                yield int(entry.name)


def test_what_to_try_next_works_when_pasted(demo):
    lines = list(_try_next(demo.folder, demo.result.devices[0].profile))
    assert "fleet serve" in lines.pop()
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(lines)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "assistant 1.2.0" in done.stdout


RUNNING = """
import sys, time
from pathlib import Path
from edge_sdk.cli.demo.fleet import Fleet
from edge_sdk.cli.demo import _try_next
from edge_sdk.cli.demo.processes import Children
from edge_sdk.cli.demo.result import DemoResult
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
        folders = (source / "model", source / "tuning")
        found = [file for folder in folders for file in folder.iterdir()]
        for file in (source / "calibration.jsonl", *found):
            name = file.relative_to(source)
            assert archive.read(f"edge_sdk/demo_data/{name}") == file.read_bytes()
