"""Who is there, since when not, and what changes are worth telling."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_sdk.fleet.database.engine import Database
from edge_sdk.fleet.devices import Devices
from edge_sdk.fleet.shadow_service import Change
from edge_sdk.shadow.document import Section, Shadow
from edge_sdk.transport.mqtt.codec import Received
from tests.fleet.speaking import run


class World:
    """Devices, a clock, and everything that was told."""

    def __init__(self, database: Database) -> None:
        self.now = 1000.0
        self.devices = Devices(database, lambda: self.now)
        self.told: list[tuple[str, str | None]] = []

    async def hear(self, thing: str, online: bool = True, session: str = "a", **options: Any):
        body = {"online": online, "session": session, "interval": 4.0}
        message = Received(
            topic=f"edge/things/{thing}/presence", payload=json.dumps(body).encode(), **options
        )
        await self.devices.receive(message)
        self.look()

    def report(self, thing: str, reported: Any, name: str = "models") -> None:
        shadow = Shadow(version=1, timestamp=0, reported=Section(reported))
        self.devices.changed(Change(thing, name, shadow))
        self.look()

    def look(self, seconds: float = 0.0, connected: bool = True) -> None:
        self.now += seconds
        self.told += [(e.kind, e.thing) for e in self.devices.look(connected)]

    def online(self, thing: str) -> bool:
        return self.devices.all[thing].online


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'fleet.db'}")
    yield database
    database.close()


@pytest.fixture
def world(database):
    return World(database)


def test_silence_for_one_and_a_half_heartbeats_is_absence(world):
    async def test() -> None:
        await world.hear("gw-1")
        world.look(5.9)
        assert world.online("gw-1")
        world.look(0.2)
        assert not world.online("gw-1")
        await world.hear("gw-1")
        assert world.online("gw-1")

    run(test)
    assert world.told == [(f"device.{how}", "gw-1") for how in ("online", "offline", "online")]


def test_the_will_of_an_older_connection_says_nothing(world):
    async def test() -> None:
        await world.hear("gw-1", session="a")
        await world.hear("gw-1", session="b")
        await world.hear("gw-1", online=False, session="a")
        assert world.online("gw-1")
        await world.hear("gw-1", online=False, session="b")
        assert not world.online("gw-1")

    run(test)


def test_while_the_broker_is_away_nobody_is_absent(world):
    async def test() -> None:
        await world.hear("gw-1")
        for _ in range(100):
            world.look(1.0, connected=False)
        world.look(5.9)
        assert world.online("gw-1")
        world.look(0.2)
        assert not world.online("gw-1")

    run(test)


def test_what_a_broker_had_kept_is_no_sign_of_now(world):
    async def test() -> None:
        await world.hear("gw-1")
        world.now += 100
        await world.hear("gw-1", retain=True)
        assert world.devices.all["gw-1"].last_seen == 1000.0

    run(test)


@pytest.mark.parametrize("payload", [b"", b"[]", b"\xff", b'{"online": 1}'])
def test_a_presence_that_is_none_is_ignored(world, payload):
    async def test() -> None:
        await world.devices.receive(Received(topic="edge/things/x/presence", payload=payload))
        assert dict(world.devices.all) == {}

    run(test)


def test_what_a_shadow_says_is_known_and_nonsense_harms_nobody(world):
    world.report("gw-1", {"agent": {"profile": "arm64", "labels": {"site": "berlin"}}})
    world.report("gw-2", {"models": {"m": {"version": 7}}})
    world.report("gw-3", {"agent": {"profile": "x"}}, name="other")
    assert world.devices.all["gw-1"].labels == {"site": "berlin"}
    assert world.devices.all["gw-2"].models == {}
    assert "gw-3" not in world.devices.all


def test_drift_is_told_once_per_version(world):
    def report(drift: float, digest: str = "d") -> None:
        model = {"version": "1", "digest": digest, "health": {"requests": 50, "drift": drift}}
        world.report("gw-1", {"models": {"m": model}})

    for drift in (0.1, 0.3, 0.4, 0.3):
        report(drift)
    assert world.told == [("model.drift", "gw-1")]
    report(0.3, "other")
    assert world.told == [("model.drift", "gw-1")] * 2


def test_a_server_that_starts_anew_knows_its_devices_and_waits_for_them(world, database):
    async def test() -> None:
        await world.hear("gw-1")
        world.devices.label("gw-1", {"line": "3", "old": None})
        await world.devices.save(at_once=True)
        after = World(database)
        await after.devices.load()
        after.look()
        assert (after.told, after.online("gw-1")) == ([], True)
        assert after.devices.all["gw-1"].labels == {"line": "3"}
        after.look(6.1)
        assert after.told == [("device.offline", "gw-1")]

    run(test)


def test_being_last_seen_is_not_written_down_at_every_heartbeat(world, database):
    statements = []

    async def test() -> None:
        import sqlalchemy as sa

        sa.event.listen(database.engine, "commit", lambda connection: statements.append(1))
        for _ in range(25):
            await world.hear("gw-1")
            world.now += 1
            await world.devices.save()

    run(test)
    assert len(statements) == 2
