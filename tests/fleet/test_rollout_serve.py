"""Rollouts over a real server and broker, by the commands that people use."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import urllib3

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.errors import (
    AdmissionError,
    BundleError,
    ConfigError,
    FleetError,
    NotKnownError,
    TransferError,
)
from edge_sdk.fleet.client import FleetClient
from edge_sdk.fleet.views import DeployRequest
from tests.bundle.conftest import tmp_path
from tests.bundle.samples import make_bundle
from tests.fleet.gateways import gateways, refuses
from tests.fleet.server import PATIENCE, servers

__all__ = ["tmp_path"]
SOON = ("soak_s=0.3",)


@pytest.fixture
def start(tmp_path, mosquitto):
    """Starts the server again and again over the same data and broker."""
    with servers() as start:
        yield lambda *options: start(tmp_path / "data", "--broker", mosquitto.url, *options)


@pytest.fixture
def gateway(mosquitto):
    with gateways() as make:
        yield lambda *arguments, **labels: make(mosquitto.url, *arguments, **labels)


@pytest.fixture
def bundles(tmp_path):
    """Versions 1.0.0 and 1.1.0 in the server's own store."""
    store = Store(tmp_path / "data" / "store")
    for version in ("1.0.0", "1.1.0"):
        path = make_bundle(tmp_path / version, version=version, head=version.encode())
        store.install(open_bundle(path))
    return {entry.version: entry.bundle_digest for entry in store.ls()}


def until(condition: Callable[[], Any], what: str = "it") -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


def online(client: FleetClient, number: int) -> None:
    until(
        lambda: sum(d.online and bool(d.profile) for d in client.devices().devices) == number,
        f"{number} devices",
    )


def deploy(client: FleetClient, version: str, **options: Any) -> int:
    request = DeployRequest(ref=f"digits:{version}", **{"gates": SOON, **options})
    number = client.deploy(request).rollout
    assert number is not None
    return number


def ended(client: FleetClient, number: int) -> str:
    return [view.status for view in client.progress(number)][-1]


def running(client: FleetClient) -> dict[str, str]:
    return {d.thing: d.reported["digits"].version for d in client.devices().devices}


def edge_sdk(server: Any, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_sdk.cli.main", "fleet", *words],
        capture_output=True, text=True, timeout=PATIENCE,
        env={"EDGE_SDK_SERVER": server.serving["http"], "PATH": ""},
    )  # fmt: skip


def test_a_version_reaches_a_fleet_and_a_bad_one_comes_back_by_itself(start, gateway, bundles):
    server = start()
    client = FleetClient(server.serving["http"])
    made = [gateway(f"gw-{n}", refuses("1.1.0")) for n in range(4)]
    online(client, 4)
    assert ended(client, deploy(client, "1.0.0", stages="25,100")) == "completed"
    assert set(running(client).values()) == {"1.0.0"}

    number = deploy(client, "1.1.0", stages="25,100")
    assert ended(client, number) == "aborted"
    detail = client.rollout(number)
    assert "self-test: logits differ" in detail.rollout.note
    assert sum("1.1.0" in one.asked for one in made) == 1
    desired = {d.desired["digits"].digest for d in client.devices().devices}
    assert desired == {bundles["1.0.0"]}
    kinds = [entry.event.kind for entry in client.audit(rollout=number).entries]
    assert kinds == [
        "rollout.returned", "rollout.aborted", "device.failed", "rollout.stage", "rollout.started",
    ]  # fmt: skip
    assert server.stop() == 0


def test_a_canary_is_tried_on_the_devices_first(start, gateway, bundles):
    server = start()
    client = FleetClient(server.serving["http"])
    gateway("gw-0")
    online(client, 1)
    ended(client, deploy(client, "1.0.0", stages="100"))
    number = deploy(client, "1.1.0", stages="100", canary=20, gates=("soak_s=0.5",))

    def on_trial():
        [device] = client.devices().devices
        return device.reported["digits"].canary

    assert until(on_trial).digest == bundles["1.1.0"]
    assert running(client) == {"gw-0": "1.0.0"}
    assert ended(client, number) == "completed"
    assert running(client) == {"gw-0": "1.1.0"}
    [device] = client.devices().devices
    assert device.desired["digits"].canary is None


def test_a_server_that_is_killed_goes_on_where_it_was(start, gateway, bundles):
    server = start()
    client = FleetClient(server.serving["http"])
    for number in range(6):
        gateway(f"gw-{number}")
    online(client, 6)
    rollout = deploy(client, "1.0.0", stages="10,50,100", gates=("soak_s=1",))
    until(lambda: client.rollout(rollout).rollout.stage == 2, "the second stage")
    server.kill()

    again = FleetClient(start().serving["http"])
    assert again.rollout(rollout).rollout.status == "running"
    assert again.rollout(rollout).rollout.stage == 2
    assert ended(again, rollout) == "completed"
    assert set(running(again).values()) == {"1.0.0"}
    stages = [e.event for e in again.audit(rollout=rollout).entries if "stage" in e.event.kind]
    assert len(stages) == 3


def test_what_was_decided_and_not_told_is_told_after_a_restart(start, gateway, bundles, tmp_path):
    """A server that dies between its decision and the shadows: the rows say what is missing."""
    server = start()
    client = FleetClient(server.serving["http"])
    gateway("gw-0")
    online(client, 1)
    rollout = deploy(client, "1.0.0", stages="100", gates=("soak_s=2",))
    until(lambda: running(client) if _has_model(client) else None, "the version")
    server.kill()
    with sqlite3.connect(tmp_path / "data" / "fleet.db") as database:
        # As the row was before the shadow was written to.
        for after, before in (('"written":true', '"written":false'), ('"done"', '"open"')):
            change = "UPDATE rollout_members SET document = replace(document, ?, ?)"
            database.execute(change, (after, before))
        [(document,)] = database.execute("SELECT document FROM rollout_members")
        database.execute("DELETE FROM shadows")
    database.close()
    assert json.loads(document)["written"] is False

    again = FleetClient(start().serving["http"])
    assert ended(again, rollout) == "completed"
    assert again.device("gw-0").device.desired["digits"].digest == bundles["1.0.0"]


def _has_model(client: FleetClient) -> bool:
    return all("digits" in device.reported for device in client.devices().devices)


def test_a_full_disk_stops_no_server_and_loses_no_rollout(start, gateway, bundles):
    server = start()
    client = FleetClient(server.serving["http"])
    for number in range(4):
        gateway(f"gw-{number}")
    online(client, 4)
    rollout = deploy(client, "1.0.0", stages="25,100")
    until(lambda: client.rollout(rollout).rollout.stage == 1, "the first stage")
    server.limit_files(1)
    until(lambda: any("could not be written down" in line for line in server.log), "the fault")
    with pytest.raises(FleetError, match="database failed"):
        client.operate(rollout, "pause")
    stuck = client.rollout(rollout).rollout
    assert (stuck.status, stuck.stage) == ("running", 1)
    server.limit_files(-1)
    assert ended(client, rollout) == "completed"
    assert set(running(client).values()) == {"1.0.0"}


def test_pause_approve_abort_and_rollback_by_hand(start, gateway, bundles):
    server = start()
    client = FleetClient(server.serving["http"])
    for number in range(4):
        gateway(f"gw-{number}")
    online(client, 4)
    ended(client, deploy(client, "1.0.0", stages="100"))

    number = deploy(client, "1.1.0", stages="25,100", approve=True)
    until(lambda: client.rollout(number).rollout.status == "waiting")
    assert client.operate(number, "pause").rollout.status == "paused"
    assert client.operate(number, "resume").rollout.status == "running"
    until(lambda: client.rollout(number).rollout.status == "waiting")
    client.operate(number, "approve")
    assert ended(client, number) == "completed"
    assert set(running(client).values()) == {"1.1.0"}

    client.operate(number, "rollback")
    assert ended(client, number) == "rolled_back"
    assert set(running(client).values()) == {"1.0.0"}
    with pytest.raises(FleetError, match="is rolled_back: abort does nothing"):
        client.operate(number, "abort")

    other = deploy(client, "1.1.0", stages="25,100", gates=("soak_s=60",))
    with pytest.raises(FleetError, match=f"rollout {other} of digits is running on gw-0"):
        deploy(client, "1.1.0", stages="100")
    with pytest.raises(FleetError, match=f"rollout {other} of digits is running"):
        client.operate(1, "rollback")
    assert client.operate(other, "abort").rollout.status == "returning"
    assert ended(client, other) == "aborted"
    assert set(running(client).values()) == {"1.0.0"}


def test_an_older_version_needs_the_word(start, gateway, bundles):
    client = FleetClient(start().serving["http"])
    gateway("gw-0")
    online(client, 1)
    ended(client, deploy(client, "1.1.0", stages="100"))
    with pytest.raises(AdmissionError, match=r"1\.0\.0 is older than what these have: gw-0"):
        deploy(client, "1.0.0", stages="100")
    assert ended(client, deploy(client, "1.0.0", stages="100", allow_older=True)) == "completed"


def test_selectors_labels_and_a_dry_run(start, gateway, bundles):
    client = FleetClient(start().serving["http"])
    gateway("gw-0", site="berlin")
    gateway("gw-1", site="hamburg")
    online(client, 2)
    client.label("gw-1", {"line": "3"})
    assert client.device("gw-1").device.labels == {"site": "hamburg", "line": "3"}
    assert [d.thing for d in client.devices("label.site=ber*").devices] == ["gw-0"]
    asked = DeployRequest(ref="digits:1.0.0", selector="label.line=3", dry_run=True)
    plan = client.deploy(asked)
    assert (plan.rollout, plan.stages) == (None, (("gw-1",),))
    assert not client.rollouts().rollouts
    for labels in ({"a b": "c"}, {"line": "3,4"}, {"line": ""}, {"": "3"}, {"line": "x" * 64}):
        with pytest.raises(ConfigError, match="no label that a selector could name"):
            client.label("gw-1", labels)
    with pytest.raises(BundleError, match="not allowed here"):
        client.deploy(DeployRequest(ref="digits:1.0.0", model="../x"))
    client.label("gw-1", {"line": None})
    with pytest.raises(ConfigError, match="matches no device; 2 are known"):
        client.deploy(asked)


def test_labels_and_devices_outlive_the_server(start, gateway):
    server = start()
    client = FleetClient(server.serving["http"])
    gateway("gw-0", site="berlin")
    online(client, 1)
    client.label("gw-0", {"line": "3"})
    server.kill()
    again = FleetClient(start().serving["http"])
    [found] = again.devices().devices
    assert found.labels == {"site": "berlin", "line": "3"}
    assert found.last_seen is not None


def test_online_and_offline_within_an_interval(start, gateway, mosquitto):
    client = FleetClient(start().serving["http"])
    gateway("gw-0")
    online(client, 1)
    # One whose connection hangs: no will, no farewell, only silence.
    silent = _say(mosquitto, "gw-1")
    online_now = until(lambda: [d for d in client.devices().devices if d.thing == "gw-1"])
    assert online_now[0].online
    until(lambda: not client.device("gw-1").device.online, "silence")
    assert client.device("gw-0").device.online
    silent.close()


def _say(broker: Any, thing: str) -> Any:
    """Somebody who has said once that a device is there."""
    from edge_sdk.transport.address import BrokerAddress
    from edge_sdk.transport.link import Message
    from edge_sdk.transport.paho_link import PahoLink

    link = PahoLink(BrokerAddress.parse(broker.url), "somebody")
    link.open(lambda _: None)
    until(lambda: link.connected)
    link.publish(
        Message(
            f"edge/things/{thing}/presence",
            b'{"online": true, "session": "s", "interval": 0.4}',
        )
    )
    return link


def test_a_token_is_asked_for(start, tmp_path):
    (tmp_path / "fleet.toml").write_text('[http]\ntoken = "right"\n')
    server = start("--config", str(tmp_path / "fleet.toml"))
    url = server.serving["http"]
    with pytest.raises(ConfigError, match="asks for a token"):
        FleetClient(url).devices()
    with pytest.raises(ConfigError, match="not this server's"):
        FleetClient(url, "wrong").rollouts()
    assert FleetClient(url, "right").devices().devices == ()


def test_forms_of_browsers_change_nothing(start):
    url = start().serving["http"]
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = urllib3.request(
            "POST", f"{url}/api/v1/rollouts", body=b'{"ref": "m:1"}', headers={"content-type": kind}
        )
        assert answer.status == 415
        assert json.loads(answer.data)["kind"] == "ConfigError"


def test_a_name_that_anybody_may_have_given_it_is_not_answered_to(start, tmp_path):
    """DNS rebinding: a page on evil.example.com whose name now leads to this machine."""
    meant = ("127.0.0.1:8080", "[::1]:8080", "localhost", "hub:80", "hub.example.org:8080")
    others = ("evil.example.com", "127.0.0.1.evil.com")
    hosts = dict.fromkeys(meant, 200) | dict.fromkeys(others, 403)
    (tmp_path / "fleet.toml").write_text('[http]\npublic = "http://hub.example.org:8080"\n')
    url = start("--config", str(tmp_path / "fleet.toml")).serving["http"]
    for host, status in hosts.items():
        answer = urllib3.request("GET", f"{url}/api/v1/devices", headers={"host": host})
        assert (host, answer.status) == (host, status)


def test_what_is_not_there_is_said(start, bundles):
    server = start()
    client = FleetClient(server.serving["http"])
    with pytest.raises(NotKnownError, match="there is no such rollout"):
        client.rollout(7)
    with pytest.raises(NotKnownError, match="no device 'gw-7' is known"):
        client.device("gw-7")
    with pytest.raises(NotKnownError, match="there is no such rollout"):
        next(client.progress(7))
    with pytest.raises(TransferError, match="is not reached"):
        FleetClient("http://127.0.0.1:1").devices()
    with pytest.raises(ConfigError, match="is no server"):
        FleetClient("localhost")


def test_commands_print_what_people_and_programs_need(start, gateway, bundles):
    server = start()
    client = FleetClient(server.serving["http"])
    gateway("gw-0", refuses("1.1.0"), site="berlin")
    online(client, 1)
    done = edge_sdk(
        server, "deploy", "digits:1.0.0", "--stages", "100", "--soak", "0.2s", "--watch"
    )
    assert done.returncode == 0, done.stderr
    progress = done.stderr.splitlines()
    assert all(line != after for line, after in pairwise(progress))
    assert "digits 1.0.0 completed" in done.stdout
    failed = edge_sdk(
        server, "deploy", "digits:1.1.0", "--stages", "100", "--soak", "0.2s", "--watch", "--json"
    )
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["rollout"]["status"] == "aborted"
    shown = edge_sdk(server, "show", "gw-0").stdout
    assert "device.failed  rollout 2 gw-0  fleet  self-test: logits differ" in shown
    assert "site=berlin" in shown
    assert "digits 1.0.0 running" in edge_sdk(server, "devices").stdout
    listed = edge_sdk(server, "rollouts").stdout.splitlines()[1].split()
    assert listed[:6] == ["2", "digits", "1.1.0", "aborted", "1/1", "0/1"]
    assert "rollout.aborted" in edge_sdk(server, "audit", "--rollout", "2").stdout
    refused = edge_sdk(server, "pause", "2")
    assert (refused.returncode, refused.stderr) == (
        1,
        "edge-sdk fleet: error: rollout 2: is aborted: pause does nothing for it\n"
        "  remedy: deploy again\n",
    )
    assert edge_sdk(server, "rollouts", "9").returncode == 2
    assert edge_sdk(server, "deploy", "digits:9.9.9").returncode == 2


def test_a_device_that_is_gone_can_be_forgotten_and_come_back(start, gateway, bundles):
    server = start()
    client = FleetClient(server.serving["http"])
    here = gateway("gw-0", site="berlin")
    online(client, 1)
    number = deploy(client, "1.0.0", stages="100", keep=True)
    ended(client, number)
    client.label("gw-0", {"line": "3"})
    with pytest.raises(FleetError, match="is online, and would be known again at once"):
        client.forget("gw-0")
    here.stop()
    until(lambda: not client.device("gw-0").device.online)
    waiting = deploy(client, "1.1.0", stages="100")
    with pytest.raises(FleetError, match=f"rollout {waiting} is running on it"):
        client.forget("gw-0")
    client.operate(waiting, "abort")
    ended(client, waiting)
    assert client.forget("gw-0").device.labels == {"site": "berlin", "line": "3"}
    assert client.devices().devices == ()
    server.kill()
    server = start()  # neither the database nor the broker tells it of the device
    client = FleetClient(server.serving["http"])
    assert client.devices().devices == ()
    with pytest.raises(NotKnownError, match="no device 'gw-0' is known"):
        client.forget("gw-0")
    gateway("gw-0", site="berlin")
    online(client, 1)
    assert client.device("gw-0").device.labels == {"site": "berlin"}
    assert client.audit(thing="gw-0").entries
