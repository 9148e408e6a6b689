"""Rollouts and the audit in both databases."""

from __future__ import annotations

import msgspec
import pytest

from edge_sdk.fleet import audit, rollout_store
from edge_sdk.fleet.database.engine import Database
from edge_sdk.fleet.devices import Devices
from edge_sdk.fleet.rollout.events import Event
from edge_sdk.fleet.rollout.state import Member, Rollout
from edge_sdk.fleet.views import rollout_view
from edge_sdk.transport.mqtt.codec import Received
from tests.fleet.rollout_fleet import OLD, PLAN
from tests.fleet.speaking import run

MEMBERS = tuple(Member(thing=f"gw-{n}", stage=n // 2) for n in range(5))
ROLLOUT = Rollout(id=0, plan=PLAN, by="ann", created_at=1.5, members=MEMBERS)


@pytest.fixture
def database(database_url):
    database = Database(database_url)
    yield database
    database.close()


def test_rollouts_are_numbered_kept_and_changed(database):
    with database.engine.begin() as connection:
        first = rollout_store.create(connection, ROLLOUT)
        second = rollout_store.create(connection, ROLLOUT)
        assert (first.id, second.id) == (1, 2)
        asked = msgspec.structs.replace(MEMBERS[3], wish="full", before=OLD, since=7.25)
        members = (*MEMBERS[:3], asked, *MEMBERS[4:])
        after = msgspec.structs.replace(second, members=members, note="asks gw-3", stage=1)
        rollout_store.update(connection, second, after)
        ended = msgspec.structs.replace(first, status="completed", ended_at=9.0)
        rollout_store.update(connection, first, ended)
    with database.engine.connect() as connection:
        assert rollout_store.unended(connection) == (after,)
        views = (rollout_view(after), rollout_view(ended))
        assert rollout_store.newest(connection, 10) == views
        assert rollout_store.newest(connection, 1) == views[:1]
        assert rollout_store.one(connection, 1) == ended
        assert rollout_store.one(connection, 3) is None


def test_rollouts_in_force_are_found_with_devices_that_came_later(database):
    kept = msgspec.structs.replace(ROLLOUT, plan=msgspec.structs.replace(PLAN, keep=True))
    with database.engine.begin() as connection:
        first, second = (rollout_store.create(connection, kept) for _ in range(2))
        late = Member(thing="new", stage=2, wish="full", answer="late")
        after = msgspec.structs.replace(first, status="completed", members=(*MEMBERS, late))
        rollout_store.update(connection, first, after)
        aborted = msgspec.structs.replace(second, status="aborted")
        rollout_store.update(connection, second, aborted)
    with database.engine.connect() as connection:
        assert rollout_store.standing(connection) == (after,)


def test_the_audit_is_read_from_its_end(database):
    events = [
        Event(kind="rollout.started", text=f"number {n}", rollout=n % 2, thing=f"gw-{n % 3}")
        for n in range(10)
    ]
    with database.engine.begin() as connection:
        audit.record(connection, events, 4.5)
        audit.record(connection, [Event(kind="device.offline", text="", thing="gw-0")], 5.0)
    with database.engine.connect() as connection:
        newest = audit.entries(connection, limit=4)
        assert [entry.event.text for entry in newest] == [f"number {n}" for n in (9, 8, 7, 6)]
        older = audit.entries(connection, before=newest[-1].id, limit=4)
        assert [entry.event.text for entry in older] == [f"number {n}" for n in (5, 4, 3, 2)]
        of_one = audit.entries(connection, rollout=1, thing="gw-0")
        assert [entry.event for entry in of_one] == [events[9], events[3]]
        assert {entry.at for entry in newest} == {4.5}


def test_devices_are_kept(database):
    async def test() -> None:
        before = Devices(database, lambda: 1000.0)
        body = b'{"online": true, "session": "s"}'
        await before.receive(Received(topic="edge/things/gw-1/presence", payload=body))
        before.label("gw-1", {"site": "berlin"})
        await before.save(at_once=True)
        after = Devices(database, lambda: 2000.0)
        await after.load()
        assert dict(after.all) == dict(before.all)

    run(test)
