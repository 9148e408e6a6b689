"""While nobody can be heard, nobody is blamed: outages of the broker and of the server."""

from __future__ import annotations

import threading
import time

import pytest

from edge_sdk.errors import FleetError
from edge_sdk.fleet.client import FleetClient
from edge_sdk.fleet.rollout.decide import decide
from edge_sdk.fleet.rollout.device import Device
from edge_sdk.fleet.rollout.outage import extended, last_heard
from tests.bundle.conftest import tmp_path
from tests.fleet.gateways import Object, obeys
from tests.fleet.rollout_fleet import Fleet
from tests.fleet.server import PATIENCE
from tests.fleet.test_rollout_decide import GATES, all_good, plan
from tests.fleet.test_rollout_serve import (
    bundles,
    deploy,
    edge_sdk,
    ended,
    gateway,
    online,
    running,
    start,
    until,
)

__all__ = ["bundles", "gateway", "start", "tmp_path"]
SHORT_S = 1.5  # for a device without progress
AWAY = "the broker is away"


def test_patience_goes_on_where_it_was():
    fleet = Fleet({"gw-0": "silent"}, plan(gates=GATES))
    fleet.step()
    fleet.step()  # what it shows now is waited on
    fleet.step(GATES.max_wait_s - 10)
    begun = fleet.now
    fleet.now += 3600
    fleet.rollout = extended(fleet.rollout, fleet.now - begun, fleet.now)
    fleet.step(5)
    assert fleet.rollout.status == "running"
    fleet.step(10)
    assert fleet.rollout.status == "returning"


def test_a_soak_goes_on_where_it_was():
    fleet = Fleet(all_good(2), plan(stages="50,100", gates=GATES))
    fleet.run(lambda rollout: rollout.settled_at is not None)
    fleet.now += 3600
    fleet.rollout = extended(fleet.rollout, 3600, fleet.now)
    fleet.step(GATES.soak_s - 1)
    assert fleet.rollout.stage == 0
    fleet.step(1)
    assert fleet.rollout.stage == 1


def test_what_was_heard_before_an_outage_is_judged_in_it():
    fleet = Fleet(dict.fromkeys(all_good(4), "refuses"), plan(stages="100", gates=GATES))
    fleet.step()
    heard = fleet.now
    fleet.now += 10
    for thing in fleet.devices:
        fleet._react(thing)
    assert decide(fleet.rollout, fleet.devices, heard).rollout.ends_as == "aborted"


def test_nothing_begins_in_the_future():
    fleet = Fleet(all_good(1))
    fleet.step()
    rollout = extended(fleet.rollout, 3600, fleet.now)
    assert rollout.members[0].since == fleet.now
    assert extended(rollout, -5, fleet.now) is rollout


def test_a_server_knows_when_it_was_last_at_work():
    fleet = Fleet(all_good(1))
    fleet.step()
    asked = fleet.now
    seen = Device(thing="gw-9", last_seen=asked + 100)
    assert last_heard([fleet.rollout], [], asked + 500) == asked
    assert last_heard([fleet.rollout], [seen], asked + 500) == asked + 100
    assert last_heard([fleet.rollout], [seen], asked - 500) == asked - 500, "by a clock set back"
    assert last_heard([], [], 7.0) == 7.0


class Slow:
    """A device that is told and says nothing of it until it may."""

    def __init__(self) -> None:
        self.told = threading.Event()
        self.may_answer = False
        self.wanted: Object = {}

    def __call__(self, wanted: Object) -> Object:
        if wanted["version"] == "1.0.0" or self.may_answer:
            return obeys(wanted)
        self.wanted = wanted
        self.told.set()
        return {}


def stays(client: FleetClient, number: int, status: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert client.rollout(number).rollout.status == status
        time.sleep(0.05)


@pytest.fixture
def slow(start, gateway, bundles):
    """A server, and a device that has been told of 1.1.0 and not answered."""
    server, device = start(), Slow()
    client = FleetClient(server.serving["http"])
    made = gateway("gw-0", device)
    online(client, 1)
    assert ended(client, deploy(client, "1.0.0")) == "completed"
    number = deploy(client, "1.1.0", gates=("soak_s=0.2", f"max_wait_s={SHORT_S}"))
    assert device.told.wait(PATIENCE)
    until(lambda: client.rollout(number).members[0].written, "its shadow")
    return server, client, device, made, number


def test_an_outage_of_the_broker_is_not_the_devices_fault(slow, mosquitto):
    server, client, device, _, number = slow
    mosquitto.stop()
    until(lambda: AWAY in client.rollout(number).rollout.note, AWAY)
    assert AWAY in edge_sdk(server, "rollouts").stdout
    stays(client, number, "running", 2 * SHORT_S)
    device.may_answer = True
    mosquitto.start()
    assert ended(client, number) == "completed"
    assert AWAY not in client.rollout(number).rollout.note
    assert running(client) == {"gw-0": "1.1.0"}


def test_an_outage_of_the_server_is_not_the_devices_fault(slow, start):
    server, _, device, made, number = slow
    server.kill()
    time.sleep(2 * SHORT_S)  # that is the outage
    client = FleetClient(start().serving["http"])
    stays(client, number, "running", 0.5)
    made.report("digits", **obeys(device.wanted))
    assert ended(client, number) == "completed"


def test_a_device_without_progress_is_waited_for_no_longer_after_an_outage(slow, mosquitto):
    _, client, _, _, number = slow
    mosquitto.stop()
    until(lambda: AWAY in client.rollout(number).rollout.note, AWAY)
    mosquitto.start()
    assert ended(client, number) == "aborted"


def test_a_rollout_that_cannot_be_told_holds_up_nothing(slow, mosquitto):
    _, client, device, _, number = slow
    mosquitto.stop()
    until(lambda: AWAY in client.rollout(number).rollout.note, AWAY)
    with pytest.raises(FleetError, match=AWAY):
        client.forget("gw-0")
    assert client.operate(number, "abort").rollout.status == "returning"
    assert client.audit(rollout=number).entries[0].event.kind == "rollout.aborted"
    device.may_answer = True
    mosquitto.start()
    assert ended(client, number) == "aborted"
    until(lambda: running(client) == {"gw-0": "1.0.0"}, "the version before")
