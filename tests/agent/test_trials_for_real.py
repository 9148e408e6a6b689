"""``convert --on thing:NAME``'s side of a trial, with a real broker, server and agent."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("sqlalchemy", reason="the cloud's side needs the extra [fleet]")

from edge_sdk.bundle.store import Store
from edge_sdk.cli import on_thing
from edge_sdk.cli.on_thing import OnThing
from edge_sdk.errors import ConfigError, FleetError, NotKnownError
from edge_sdk.fleet.client import FleetClient
from edge_sdk.shadow.trials import TrialResult
from tests.agent.cloud_process import AgentProcess, RealCloud, agent_online, real_cloud, until


@pytest.fixture(scope="module")
def cloud(bundles, tmp_path_factory) -> Iterator[RealCloud]:
    with real_cloud(tmp_path_factory.mktemp("cloud"), [bundles["1"]]) as made:
        yield made


@pytest.fixture
def agent(cloud, tmp_path) -> Iterator[AgentProcess]:
    with agent_online(cloud, tmp_path, "bench-1") as made:
        yield made


def on(cloud: RealCloud, where: str) -> OnThing:
    said: list[str] = []
    return OnThing(where, cloud.server.serving["http"], None, None, said.append)


def test_candidates_travel_are_measured_and_leave_nothing(agent, cloud, bundles):
    cloud.want(agent.thing, bundles["1"])
    cloud.wait(agent.thing, "running", "1.0.0")
    measure = on(cloud, "thing:bench-1")
    figures = measure({"two": bundles["2"].path, "bad": bundles["wrong"].path}, 0.1)
    assert figures["two"].p50_ms > 0
    assert figures["two"].error is None
    assert figures["bad"].error is not None
    kept = {(e.name, e.version) for e in Store(cloud.server.serving["store"]).ls()}
    assert kept == {("lookup", "1.0.0")}, "candidates are gone from the server"
    assert [e.version for e in Store(agent.store).ls()] == ["1.0.0"]
    assert agent.ask() == 4, "what serves was left alone"
    view = until(
        lambda: (
            (v := FleetClient(cloud.server.serving["http"]).trial("bench-1")).result is None and v
        ),
        "an empty shadow",
    )
    assert view.id == ""


def begun(cloud: RealCloud) -> TrialResult | None:
    result = FleetClient(cloud.server.serving["http"]).trial("bench-1").result
    return result if result and result.status == "measuring" and result.candidate else None


def test_a_second_workstation_takes_over_and_the_first_is_told(agent, cloud, bundles):
    with ThreadPoolExecutor() as pool:
        first = pool.submit(on(cloud, "thing:bench-1"), {"two": bundles["2"].path}, 600.0)
        until(lambda: begun(cloud), "the first trial")
        figures = on(cloud, "thing:bench-1")({"one": bundles["1"].path}, 0.1)
        with pytest.raises(FleetError, match="asked to measure something else meanwhile"):
            first.result(30)
    assert figures["one"].p50_ms > 0, "the first one's end did not end the second"
    kept = {(e.name, e.version) for e in Store(cloud.server.serving["store"]).ls()}
    assert ("lookup", "2.0.0") not in kept


def test_an_interrupted_conversion_ends_its_trial_and_takes_its_candidates_back(
    agent, cloud, bundles
):
    program = (
        "import sys; from pathlib import Path; from edge_sdk.cli.on_thing import OnThing;"
        "OnThing('thing:bench-1', sys.argv[1], None, None, print)({'2': Path(sys.argv[2])}, 600.0)"
    )
    words = [sys.executable, "-c", program, cloud.server.serving["http"], bundles["2"].path]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as conversion:
        until(lambda: begun(cloud), "the trial")
        conversion.send_signal(signal.SIGINT)
    assert conversion.returncode
    until(lambda: not begun(cloud), "the trial's end")
    kept = {(e.name, e.version) for e in Store(cloud.server.serving["store"]).ls()}
    assert ("lookup", "2.0.0") not in kept
    until(lambda: not (agent.store / "agent" / "trials").exists(), "an empty device")


def test_a_device_that_is_gone_for_long_is_not_waited_for(agent, cloud, bundles, monkeypatch):
    monkeypatch.setattr(on_thing, "_ABSENCE_S", 1.0)
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(on(cloud, "thing:bench-1"), {"two": bundles["2"].path}, 600.0)
        until(lambda: begun(cloud), "the trial")
        agent.end(signal.SIGKILL)
        with pytest.raises(FleetError, match="is not online for 1 s"):
            waits.result(60)


def test_a_trial_survives_the_death_of_its_agent(agent, cloud, bundles):
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(on(cloud, "thing:bench-1"), {"two": bundles["2"].path}, 6.0)
        until(lambda: begun(cloud), "the trial")
        agent.end(signal.SIGKILL)
        agent.start()
        assert waits.result(90)["two"].p50_ms > 0


def test_who_is_not_there_is_said_at_once(agent, cloud):
    with pytest.raises(NotKnownError, match="no device 'nobody' is known"):
        on(cloud, "thing:nobody")
    with pytest.raises(ConfigError, match="--on thing:NAME"):
        on(cloud, "bench-1")
    agent.end()
    until(
        lambda: not FleetClient(cloud.server.serving["http"]).device("bench-1").device.online,
        "the farewell",
    )
    with pytest.raises(FleetError, match="is not online"):
        on(cloud, "thing:bench-1")
