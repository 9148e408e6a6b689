"""Server, broker and agents as processes of their own: versions go out, a bad one comes back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.bundle.store import Store
from edge_sdk.fleet.client import FleetClient
from edge_sdk.fleet.views import DeployRequest
from tests.agent.releases import ROWS, SHARED, make
from tests.brokers import free_port
from tests.bundle.conftest import tmp_path
from tests.fleet.server import PATIENCE, servers

__all__ = ["tmp_path"]
pytestmark = pytest.mark.needs("mosquitto", "mosquitto")
GATES = ("soak_s=0.5", "max_wait_s=30")


@contextmanager
def agent(broker: str, folder: Path, thing: str, *options: str) -> Iterator[int]:
    """An agent with a local API; gives its port."""
    port = free_port()
    (folder / f"{thing}.toml").write_text(
        f'thing = "{thing}"\nstore = "{thing}"\n'
        f'[broker]\nurl = "{broker}"\n[http]\nlisten = "127.0.0.1:{port}"\n'
        "[report]\nheartbeat = 0.5\nhealth = 0.5\n"
    )
    command = [sys.executable, "-m", "edge_sdk.cli.main", "agent", "--config"]
    with (folder / f"{thing}.log").open("w") as log:
        process = subprocess.Popen(
            [*command, str(folder / f"{thing}.toml"), *options], stdout=log, stderr=log
        )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE)


def infer(port: int, row: int) -> float | None:
    """What the running version answers; nothing where the request fails."""
    tensor = {"name": "x", "datatype": "INT64", "shape": [1], "data": [row]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v2/models/lookup/infer",
        json.dumps({"inputs": [tensor]}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            [output] = json.load(response)["outputs"]
            return float(output["data"][0])
    except urllib.error.HTTPError as error:
        error.close()
        return None


def until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def deploy(client: FleetClient, version: str, **options: Any) -> int:
    asked = DeployRequest(ref=f"lookup:{version}", **{"gates": GATES, **options})
    number = client.deploy(asked).rollout
    assert number is not None
    return number


def ended(client: FleetClient, number: int) -> str:
    statuses = [view.status for view in client.progress(number)]
    return statuses[-1]


@pytest.fixture
def fleet(tmp_path):
    """A server with its own broker and bundles, and two agents with their ports."""
    for version, options in (
        ("1.0.0", {}), ("2.0.0", {"wrong": True}), ("3.0.0", {}), ("4.0.0", {"rows": 10}),
    ):  # fmt: skip
        bundle = make(tmp_path / version, version, **options)
        Store(tmp_path / "data" / "store").install(bundle)
    with servers() as start:
        server = start(tmp_path / "data", "--broker-port", str(free_port()))
        broker = server.serving["broker"]
        client = FleetClient(server.serving["http"])
        with agent(broker, tmp_path, "gw-1") as one, agent(broker, tmp_path, "gw-2") as two:
            until(lambda: sum(d.online for d in client.devices().devices) == 2, "agents")
            yield client, (one, two)


def versions(client: FleetClient) -> list[str]:
    return [device.reported["lookup"].version for device in client.devices().devices]


def test_versions_go_out_and_a_bad_one_comes_back_by_itself(fleet):
    client, ports = fleet
    assert ended(client, deploy(client, "1.0.0", stages="50,100")) == "completed"
    assert [infer(port, 5) for port in ports] == [6.0, 6.0]

    number = deploy(client, "2.0.0", stages="50,100")
    assert ended(client, number) == "aborted"
    assert "self-test" in client.rollout(number).rollout.note
    assert versions(client) == ["1.0.0", "1.0.0"]
    assert [infer(port, 5) for port in ports] == [6.0, 6.0]

    assert ended(client, deploy(client, "3.0.0", stages="50,100")) == "completed"
    assert [infer(port, 5) for port in ports] == [8.0, 8.0]
    fetched = [device.reported["lookup"].fetched for device in client.devices().devices]
    assert all(size is not None and size < SHARED / 10 for size in fetched)

    client.operate(number + 1, "rollback")
    assert ended(client, number + 1) == "rolled_back"
    assert [infer(port, 5) for port in ports] == [6.0, 6.0]


def test_a_canary_that_fails_requests_is_taken_back(fleet):
    """Version 4 passes its self-test, and fails on rows that devices are really asked for."""
    client, ports = fleet
    assert ended(client, deploy(client, "1.0.0", stages="100")) == "completed"
    gates = ("soak_s=60", "min_requests=5")
    number = deploy(client, "4.0.0", stages="100", canary=50, gates=gates)
    answers = set()

    def aborted() -> bool:
        answers.update(infer(port, ROWS - 1) for port in ports)
        return client.rollout(number).rollout.status == "aborted"

    until(aborted, "the end of the rollout")
    # The device takes a bad canary back by itself, or the fleet's gate does, whoever is first.
    assert None in answers
    assert versions(client) == ["1.0.0", "1.0.0"]
    assert [infer(port, ROWS - 1) for port in ports] == [float(ROWS)] * 2
