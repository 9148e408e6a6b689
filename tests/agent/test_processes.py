"""Agents as processes, with a real broker and a real server: SIGKILL, outages, a full disk."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("sqlalchemy", reason="the cloud's side needs the extra [fleet]")

from edge_sdk.bundle.store import Store
from tests.agent.cloud_process import COMMAND, AgentProcess, RealCloud, real_cloud, until
from tests.agent.releases import SHARED
from tests.brokers import free_port
from tests.fleet.server import Server, servers


@pytest.fixture(scope="module")
def cloud(bundles, tmp_path_factory) -> Iterator[RealCloud]:
    chosen = [bundles[key] for key in ("1", "2", "3", "wrong", "fragile")]
    with real_cloud(tmp_path_factory.mktemp("cloud"), chosen) as made:
        yield made


@pytest.fixture
def agent(cloud, tmp_path) -> Iterator[Callable[..., AgentProcess]]:
    made: list[AgentProcess] = []

    def make(thing: str, **lines: str) -> AgentProcess:
        made.append(AgentProcess(cloud, tmp_path, thing, **lines))
        return made[-1]

    yield make
    for one in made:
        one.close()
        print(f"{one.thing}:\n{one.log.read_text() if one.log.exists() else ''}")


STEPS = ("Fetch", "Verify", "Prepare", "Swap", "Collect")


@pytest.mark.parametrize("moment", ["begin", "done"])
@pytest.mark.parametrize("step", STEPS)
def test_sigkill_at_any_step_costs_nothing(agent, cloud, bundles, step, moment):
    here = agent(f"killed-{step}-{moment}")
    cloud.want(here.thing, bundles["1"])
    here.start()
    cloud.wait(here.thing, "running", "1.0.0")
    assert here.end() == 0
    before = cloud.wire.down
    cloud.want(here.thing, bundles["2"])
    here.start(step, moment)
    assert here.died()
    here.start()
    until(lambda: answers(here), "what was there serves")
    cloud.wait(here.thing, "running", "2.0.0")
    assert here.ask() == 5
    assert cloud.wire.down - before < SHARED / 10, "what had come did not come again"
    assert not list(Store(here.store).verify())


def test_sigkill_in_the_middle_of_a_download_keeps_what_had_come(agent, cloud, bundles):
    here = agent("cut-off", delivery='rate_limit = "100KB"')
    cloud.want(here.thing, bundles["1"])
    here.start()
    until(lambda: kept(here) > SHARED / 4, "a part of the download")
    here.end(signal.SIGKILL)
    came = kept(here)
    assert came < SHARED, "it was in the middle"
    before = cloud.wire.down
    here.start()
    cloud.wait(here.thing, "running", "1.0.0")
    assert here.ask() == 4
    assert cloud.wire.down - before < SHARED - came + SHARED / 10


def kept(here: AgentProcess) -> int:
    """Bytes of blobs that have come in part."""
    return max((path.stat().st_size for path in here.store.glob("partial/*")), default=0)


def test_a_broken_version_leaves_the_old_one_serving(agent, cloud, bundles):
    here = agent("broken")
    cloud.want(here.thing, bundles["1"])
    here.start()
    cloud.wait(here.thing, "running", "1.0.0")
    cloud.want(here.thing, bundles["wrong"])
    said = cloud.wait(here.thing, "failed", "1.0.0")
    assert "golden value" in said.error
    assert here.ask() == 4


def test_it_serves_without_a_cloud_and_catches_up(agent, cloud, bundles):
    here = agent("islander")
    cloud.want(here.thing, bundles["1"])
    here.start()
    cloud.wait(here.thing, "running", "1.0.0")
    here.end(signal.SIGKILL)
    cloud.broker.stop()
    try:
        here.start()
        until(lambda: answers(here), "an answer without a broker")
        assert here.ask() == 4
    finally:
        cloud.broker.start()
    until(lambda: cloud.console.connected, "the console's connection")
    cloud.want(here.thing, bundles["3"])
    cloud.wait(here.thing, "running", "3.0.0")
    assert here.ask() == 6


def answers(here: AgentProcess) -> bool:
    try:
        here.get("/v2/health/ready")
    except OSError:
        return False
    return True


def test_bundles_come_over_mqtt_where_only_that_is_open(agent, cloud, bundles):
    here = agent("walled", delivery='via = "mqtt"')
    before = cloud.wire.down
    cloud.want(here.thing, bundles["1"])
    here.start()
    cloud.wait(here.thing, "running", "1.0.0")
    assert here.ask() == 4
    assert cloud.wire.down == before


def test_a_registry_out_of_reach_is_replaced_by_the_fleet_over_mqtt(agent, cloud, bundles):
    here = agent("behind")
    model = msgspec.structs.replace(
        cloud.wish(bundles["1"]), ref=f"127.0.0.1:{free_port()}/lookup:1.0.0"
    )
    cloud.write(here.thing, {"lookup": model})
    here.start()
    cloud.wait(here.thing, "running", "1.0.0")
    assert "RegistrySource is not reached" in here.log.read_text()


def test_once_installs_reports_and_ends(agent, cloud, bundles):
    here = agent("cron")
    cloud.want(here.thing, bundles["1"])
    done = here.once("--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["models"]["lookup"]["version"] == "1.0.0"
    cloud.wait(here.thing, "running", "1.0.0")
    cloud.want(here.thing, bundles["wrong"])
    until(lambda: "4.0.0" in str(cloud.documents[here.thing]["desired"]), "the wish")
    failed = here.once()
    assert failed.returncode == 1
    assert "golden value" in failed.stdout


def test_once_without_a_cloud_fails(tmp_path):
    command = [*COMMAND, "--thing", "t", "--broker", "mqtt://127.0.0.1:1", "--once"]
    command += ["--store", str(tmp_path), "--profile", "x86-64", "--patience", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "nothing was heard" in done.stderr
    assert "remedy:" in done.stderr


def test_a_swap_fails_no_request(agent, cloud, bundles):
    here = agent("busy")
    cloud.want(here.thing, bundles["1"])
    here.start()
    cloud.wait(here.thing, "running", "1.0.0")
    answers: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers.append(here.ask())

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        until(lambda: len(answers) > 20, "answers of the first version")
        cloud.want(here.thing, bundles["2"])
        until(lambda: answers[-1] == 5, "an answer of the second version")
        stop.set()
        for one in asking:
            one.result()  # an error of any request
    assert set(answers) == {4, 5}


def test_a_store_has_one_agent(agent, cloud):
    here = agent("single")
    here.start()
    until(lambda: answers(here), "the local API")
    second = here.once()
    assert second.returncode == 2
    assert f"process {here.pid}" in second.stderr
    assert here.end() == 0


def test_a_full_disk_leaves_the_old_version_serving(agent, cloud, bundles):
    here = agent("full")
    cloud.want(here.thing, bundles["1"])
    here.start()
    cloud.wait(here.thing, "running", "1.0.0")
    # No file may be written any more: the kernel refuses as it does where a disk is full.
    _, hard = resource.prlimit(here.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(here.pid, resource.RLIMIT_FSIZE, (0, hard))
    cloud.want(here.thing, bundles["2"])
    said = cloud.wait(here.thing, "failed", "1.0.0")
    assert "cannot write" in said.error
    assert here.ask() == 4
    resource.prlimit(here.pid, resource.RLIMIT_FSIZE, (hard, hard))
    cloud.want(here.thing, bundles["2"], generation=1)
    cloud.wait(here.thing, "running", "2.0.0")


def test_presence_ends_with_the_process(agent, cloud):
    here = agent("mortal")
    seen: list[bool] = []
    cloud.console.subscribe(
        f"edge/things/{here.thing}/presence",
        lambda message: seen.append(json.loads(message.payload)["online"]),
    )
    here.start()
    until(lambda: seen and seen[-1], "its birth")
    here.end(signal.SIGKILL)
    until(lambda: not seen[-1], "its will")
    here.start()
    until(lambda: seen[-1], "its second birth")
    here.end()
    until(lambda: not seen[-1], "its farewell")


def test_an_agent_without_models_is_small(agent, cloud):
    here = agent("idle")
    here.start()
    until(lambda: cloud.reported(here.thing).agent, "its first report")
    status = Path(f"/proc/{here.pid}/status").read_text()
    rss = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    assert int(rss) < 60 * 1024
    maps = Path(f"/proc/{here.pid}/maps").read_text()
    assert "numpy" not in maps
    assert "onnxruntime" not in maps


def test_a_rollout_reaches_agents_and_a_broken_one_turns_back(agent, cloud):
    agents = [agent(f"fleet-{number}", labels='of = "rollout"') for number in range(2)]
    for one in agents:
        one.start()
    for one in agents:
        until(lambda one=one: cloud.reported(one.thing).agent, "its first report")
    assert deploy(cloud, "lookup:1.0.0")["status"] == "completed"
    assert [one.ask() for one in agents] == [4, 4]
    broken = deploy(cloud, "lookup:4.0.0")
    assert broken["status"] == "aborted"
    assert "golden value" in broken["note"]
    assert deploy(cloud, "lookup:2.0.0", "--canary", "50")["status"] == "completed"
    assert [one.ask() for one in agents] == [5, 5]


def deploy(cloud: RealCloud, reference: str, *options: str) -> dict[str, Any]:
    """Rolls a version out to the agents of that label, and watches until the end."""
    server = cloud.server.serving["http"]
    command = [*COMMAND[:-1], "fleet", "deploy", reference, "--model", "lookup", "--server", server]
    command += ["--to", "label.of=rollout", "--soak", "1s", "--watch", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["rollout"]
    return found


def test_what_happened_survives_sigkill_of_both_sides(bundles, tmp_path):
    with real_cloud(tmp_path / "cloud", [bundles["1"]]) as cloud, servers() as start:
        here = AgentProcess(cloud, tmp_path, "historian")
        try:
            cloud.want(here.thing, bundles["1"])
            here.start()
            cloud.wait(here.thing, "running", "1.0.0")
            first = ["agent.started", "agent.installed"]
            until(lambda: history(cloud.server, here) == first, "its first events")
            cloud.server.kill()
            here.end(signal.SIGKILL)
            here.start()
            until(lambda: answers(here), "the local API")
            here.end(signal.SIGKILL)
            here.start()
            outbox = here.store / "agent/events.log"
            assert b"started" in outbox.read_bytes()
            again = start(tmp_path / "cloud/data", "--broker", cloud.broker.url)
            until(lambda: b"started" not in outbox.read_bytes(), "an answer")
            assert history(again, here) == [*first, "agent.started"], "and each of them once"
        finally:
            here.close()


def history(server: Server, here: AgentProcess) -> list[str]:
    """Kinds of what the device told of itself, oldest first."""
    url = f"{server.serving['http']}/api/v1/audit?thing={here.thing}"
    with urllib.request.urlopen(url) as answer:
        entries = json.loads(answer.read())["entries"]
    return [entry["event"]["kind"] for entry in reversed(entries)]
