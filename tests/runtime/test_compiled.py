"""Compiling on the device: it serves meanwhile, and whatever becomes of the compiler."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import edge_sdk
from edge_sdk.agent.watch import health_of
from edge_sdk.bundle import record as rec
from edge_sdk.errors import EngineError
from edge_sdk.runtime import trial
from edge_sdk.runtime.compiled import SwitchingSession, child
from edge_sdk.runtime.model import Model
from edge_sdk.serving.served import Served
from tests.bundle.killing import killed
from tests.runtime import bundles
from tests.runtime import onnx_bytes as ob

X = np.array([[1.0, 2.0]], np.float32)
Y = np.array([[6.0, 9.0, 12.0]], np.float32)
ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0


@dataclass
class Device:
    """A bundle whose engine compiles, and the folder that says how that goes."""

    bundle: Path
    control: Path

    def load(self) -> Model:
        return edge_sdk.load(self.bundle, bundles.HERE)

    def mode(self, mode: str) -> None:
        (self.control / "mode").write_text(mode)

    def driver(self, version: str) -> None:
        (self.control / "driver").write_text(version)

    @property
    def compilers(self) -> list[int]:
        """Processes that began to compile."""
        return [int(path.name.split("-")[1]) for path in self.control.glob("compiling-*")]

    def compiler(self) -> int:
        """The process that compiles now."""
        wait_for(lambda: self.compilers)
        return self.compilers[0]

    @property
    def results(self) -> list[Path]:
        return list(self.bundle.glob("prepared/*/compiled-*/index.json"))


@pytest.fixture(autouse=True)
def plug_in(tmp_path, monkeypatch):
    """The engine as an installed package, for this process and its children."""
    site = tmp_path / "site"
    info = site / "slow-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[edge_sdk.engines]\nslow = tests.runtime.compiling_engine:SlowEngine\n"
    )
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(site), str(ROOT))))


@pytest.fixture
def device(tmp_path):
    control = tmp_path / "control"
    control.mkdir()
    device = Device(tmp_path / "bundle", control)
    device.mode("ok")
    device.driver("1")
    write_bundle(device, budget=DEADLINE_S)
    return device


def write_bundle(device: Device, budget: float) -> None:
    shutil.rmtree(device.bundle, ignore_errors=True)
    options = {"slow.control": str(device.control), "slow.budget": str(budget)}
    with bundles.Builder(device.bundle) as builder:
        builder.graph(
            [ob.node("MatMul", ["x", "w"], ["y"])],
            [bundles.spec("x", ["batch", 2])],
            [bundles.spec("y", ["batch", 3])],
            {"w": np.arange(6, dtype=np.float32).reshape(2, 3)},
        )
        case = rec.GoldenCase(
            graph="main",
            inputs={"x": builder.array(X)},
            outputs={"y": builder.array(Y)},
            atol=1e-4,
            rtol=0,
        )
        builder.variant(engine=rec.Engine(name="slow", options=options), golden=(case,))


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until, "nothing came"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    """Whether a process is there, and not only its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def answers(model: Model) -> bool:
    return np.array_equal(model.run({"x": X})["y"], Y)


def is_compiled(model: Model) -> bool:
    return "compiled" in model.notes


def test_it_serves_while_it_compiles_and_changes_when_that_is_done(device):
    device.mode("wait")
    with device.load() as model:
        device.compiler()
        assert answers(model)
        assert any("being built since" in note for note in model.notes)
        assert not model.settle(0)
        (device.control / "go").touch()
        assert model.settle(DEADLINE_S)
        assert is_compiled(model)
        assert len(model.notes) == 1
        assert answers(model)
        model.self_test()


def test_compiling_happens_in_another_process_and_once(device):
    with device.load() as model:
        assert model.settle(DEADLINE_S)
    (compiler,) = device.compilers
    assert compiler != os.getpid()
    with device.load() as model:
        assert model.settle(0)  # nothing in the background this time
        assert is_compiled(model)
    assert device.compilers == [compiler]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("crash", "ended by SIGABRT"),
        ("refuse", "the builder found no kernel"),
        ("wrong", "differs from the golden value"),
    ],
)
def test_a_compiler_that_fails_is_said_and_tried_again_with_another_driver_only(device, mode, said):
    device.mode(mode)
    with device.load() as model:
        assert model.settle(DEADLINE_S)
        assert answers(model)
        assert any(said in note for note in model.notes), model.notes
    assert len(device.compilers) == 1  # so the fault did happen
    assert not device.results
    device.mode("ok")
    with device.load() as model:
        assert model.settle(0)
        assert any(said in note for note in model.notes)
        assert not is_compiled(model)
    assert len(device.compilers) == 1
    device.driver("2")
    with device.load() as model:
        assert model.settle(DEADLINE_S)
        assert is_compiled(model)
        assert answers(model)


def test_a_compiler_that_hangs_is_ended_when_its_time_is_over(device):
    device.mode("wait")
    write_bundle(device, budget=1.5)
    with device.load() as model:
        compiler = device.compiler()
        assert model.settle(DEADLINE_S)
        assert any("longer than 1.5 s" in note for note in model.notes)
        assert answers(model)
    with pytest.raises(ProcessLookupError):
        os.kill(compiler, 0)
    assert not device.results


def test_a_compiler_that_the_kernel_kills_takes_nobody_with_it(device):
    device.mode("wait")
    with device.load() as model:
        compiler = device.compiler()
        adjusted = Path(f"/proc/{compiler}/oom_score_adj").read_text()
        os.kill(compiler, signal.SIGKILL)
        assert model.settle(DEADLINE_S)
        assert any("ended by SIGKILL" in note for note in model.notes)
        assert answers(model)
    assert int(adjusted) > 0  # it would be taken before we are


def test_closing_ends_the_compiler_and_the_next_start_begins_again(device):
    device.mode("wait")
    model = device.load()
    compiler = device.compiler()
    model.close()
    wait_for(lambda: not Path(f"/proc/{compiler}").exists())
    device.mode("ok")
    with device.load() as model:
        assert model.settle(DEADLINE_S)
        assert is_compiled(model)
    assert len(device.compilers) == 2


LOADER = """
import sys, edge_sdk
model = edge_sdk.load(sys.argv[1], sys.argv[2])
print("loaded", flush=True)
sys.stdin.read()
"""


def start(device: Device) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", LOADER, device.bundle, bundles.HERE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"loaded\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_a_compiler_outlives_a_killed_agent_and_what_it_made_is_found(device):
    device.mode("wait")
    agent = start(device)
    compiler = device.compiler()
    end(agent)
    assert Path(f"/proc/{compiler}").exists()
    (device.control / "go").touch()
    wait_for(lambda: device.results)
    with device.load() as model:
        assert is_compiled(model)
        assert answers(model)
    assert device.compilers == [compiler]


def test_an_agent_that_dies_at_it_again_and_again_stops_trying(device):
    device.mode("wait")
    for number in range(1, 3):
        agent = start(device)
        wait_for(lambda number=number: len(device.compilers) == number)
        os.kill(next(pid for pid in device.compilers if Path(f"/proc/{pid}").exists()), 9)
        end(agent)  # may or may not have seen it: whichever, it serves from the next start on
    with device.load() as model:
        assert model.settle(0)
        assert answers(model)
        assert any("served without" in note for note in model.notes)
    assert len(device.compilers) == 2


def test_a_result_that_kills_who_opens_it_is_left_alone_in_the_end(device):
    with device.load() as model:
        assert model.settle(DEADLINE_S)
    (device.control / "deadly").touch()
    for _ in range(2):
        agent = subprocess.run(
            [sys.executable, "-c", LOADER, device.bundle, bundles.HERE], stdin=subprocess.DEVNULL
        )
        assert agent.returncode == -signal.SIGABRT
    with device.load() as model:
        assert answers(model)
        assert any("2 times a process ended" in note for note in model.notes)


@pytest.mark.parametrize("damage", ["engine", "timing.cache", "index.json"])
def test_a_damaged_result_is_compiled_anew(device, damage):
    with device.load() as model:
        assert model.settle(DEADLINE_S)
    path = device.results[0].with_name(damage)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with device.load() as model:
        assert model.settle(DEADLINE_S)
        assert is_compiled(model)
        assert answers(model)
    assert len(device.compilers) == 2


def test_a_call_that_the_compiled_graph_refuses_is_answered_plainly(device):
    with device.load() as model:
        assert model.settle(DEADLINE_S)
        five = np.repeat(X, 5, axis=0)
        np.testing.assert_array_equal(model.run({"x": five})["y"], np.repeat(Y, 5, axis=0))
        assert any("refused a call" in note for note in model.notes)
        assert is_compiled(model)
        assert answers(model)


def test_an_agent_reports_what_it_serves_without(device):
    device.mode("refuse")
    served = Served(device.load(), "sha256:" + "0" * 64)
    assert served.model.settle(DEADLINE_S)
    health = health_of(served)
    assert health is not None
    assert any("the builder found no kernel" in note for note in health.notes)
    assert health.requests == 0
    served.retire()
    assert health_of(served) is None


def test_two_processes_compile_once(device):
    device.mode("wait")
    agents = [start(device), start(device)]
    device.compiler()
    (device.control / "go").touch()
    wait_for(lambda: device.results)
    for agent in agents:
        end(agent)
    assert len(device.compilers) == 1


def test_where_nothing_is_to_be_compiled_the_engine_opens_the_graph(device):
    shutil.rmtree(device.control)
    with device.load() as model:
        assert model.notes == ()
        assert model.settle(0)
        assert answers(model)
    assert not (device.bundle / "prepared").exists()


def test_without_room_for_a_result_it_serves_and_says_so(device):
    (device.bundle / "prepared").write_text("in the way")
    with device.load() as model:
        assert model.settle(DEADLINE_S)
        assert answers(model)
        assert any("served without" in note for note in model.notes)


@pytest.mark.slow
def test_killed_at_any_write_the_next_start_converges(device, tmp_path, monkeypatch):
    requests = []
    monkeypatch.setattr(
        SwitchingSession, "compile_apart", lambda self, request, *rest: requests.append(request)
    )
    device.load()
    monkeypatch.undo()
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path / "site"), str(ROOT))))
    number, alive = 0, False
    while not alive:
        number += 1
        shutil.rmtree(device.bundle / "prepared", ignore_errors=True)
        alive = not killed(number, lambda: child.main(requests[0]), "prepared")
        with device.load() as model:
            assert model.settle(DEADLINE_S)
            assert is_compiled(model), (number, model.notes)
            assert answers(model)
    assert number > 15  # so it was killed that often


def test_a_candidate_is_measured_as_it_is_compiled(device):
    found = trial.measure(trial.Question(device.bundle, 0.05))
    assert found.error is None
    assert found.notes == ("compiled",)


def test_a_candidate_that_is_measured_no_more_is_not_compiled_either(device):
    write_bundle(device, budget=10 * DEADLINE_S)  # it does not end by itself meanwhile
    device.mode("wait")
    question = trial.Question(device.bundle, 0.05)
    with pytest.raises(EngineError, match="cancelled"):
        trial.measure(question, lambda: bool(device.compilers))
    [compiler] = device.compilers
    wait_for(lambda: not runs(compiler))
