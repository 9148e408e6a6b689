"""What devices tell is in the audit once, and is answered when it is."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import msgspec
import pytest
import sqlalchemy as sa

from edge_sdk.cli import fleet_text
from edge_sdk.fleet import audit
from edge_sdk.fleet.bus import FleetBus
from edge_sdk.fleet.config import WebhookConfig
from edge_sdk.fleet.database.engine import Database
from edge_sdk.fleet.device_events import DeviceEvents
from edge_sdk.fleet.rollout.events import AuditEntry, Event
from edge_sdk.fleet.webhooks import Webhooks, new_secret
from edge_sdk.shadow.events import Batch, DeviceEvent, accepted_topic, events_topic
from edge_sdk.transport.address import BrokerAddress
from edge_sdk.transport.link import Message
from edge_sdk.transport.mqtt.client import Client
from tests.fleet.server import servers
from tests.fleet.speaking import run, until

HOOK = WebhookConfig(url="http://127.0.0.1:1/", secret=new_secret(), events=("agent.failed",))
FAILED = DeviceEvent(
    seq=2, at=1.6e9, kind="failed", model="m", version="2.0", digest="sha256:2", error="no room"
)
BATCH = Batch(
    epoch="a1",
    events=(
        DeviceEvent(seq=1, at=1.5e9, kind="started"),
        FAILED,
        DeviceEvent(seq=5, at=1.6e9, kind="dropped", count=7),
    ),
)


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'fleet.db'}")
    yield database
    database.close()


def entries(database, thing="gw-1"):
    with database.engine.connect() as connection:
        return list(reversed(audit.entries(connection, thing=thing)))


def texts(database, thing="gw-1"):
    return [(entry.event.kind, entry.event.text) for entry in entries(database, thing)]


class Device:
    """Speaks as an agent does, and hears the answers."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.answers: list[dict[str, object]] = []

    async def tell(self, what: Batch | bytes, thing: str = "gw-1") -> None:
        payload = what if isinstance(what, bytes) else msgspec.json.encode(what)
        await self.client.publish([Message(events_topic(thing), payload)])

    async def told(self, batch: Batch, thing: str = "gw-1") -> object:
        """Tells, and waits for the answer."""
        count = len(self.answers)
        await self.tell(batch, thing)
        await until(lambda: len(self.answers) > count)
        return self.answers[-1]

    async def listen(self) -> None:
        async for batch in self.client.batches():
            self.answers += [json.loads(one.payload) for one in batch]
            self.client.acknowledge(batch)


@asynccontextmanager
async def device(url: str):
    async with Client(BrokerAddress.parse(url), "device") as client:
        await client.subscribe([accepted_topic("+")])
        await client.wait_connected()
        made = Device(client)
        listening = asyncio.ensure_future(made.listen())
        try:
            yield made
        finally:
            listening.cancel()


@asynccontextmanager
async def server(url: str, database: Database):
    bus = FleetBus(BrokerAddress.parse(url), "service")
    DeviceEvents(bus, database, Webhooks([HOOK], database, lambda: 1.7e9), lambda: 1.7e9)
    running = asyncio.ensure_future(bus.run())
    try:
        await until(lambda: bus.connected or running.done())
        yield
    finally:
        running.cancel()
        await asyncio.wait([running])


def test_what_a_device_tells_is_in_the_audit_by_its_own_clock(mosquitto, database):
    async def test() -> None:
        async with server(mosquitto.url, database), device(mosquitto.url) as gateway:
            assert await gateway.told(BATCH) == {"epoch": "a1", "seq": 5}

    run(test)
    assert texts(database) == [
        ("agent.started", "the agent's first start"),
        ("agent.failed", "m 2.0 failed: no room"),
        ("agent.dropped", "had no room to keep 7 events, all in all"),
    ]
    failed = entries(database)[1]
    assert (failed.at, failed.event.device_time, failed.event.by) == (1.7e9, 1.6e9, "gw-1")
    with database.engine.connect() as connection:
        [[body]] = connection.execute(sa.text("SELECT body FROM deliveries"))
    assert json.loads(body)["data"]["device_time"] == 1.6e9


def test_what_comes_again_is_answered_and_not_written_again(mosquitto, database):
    async def test() -> None:
        async with server(mosquitto.url, database), device(mosquitto.url) as gateway:
            for _ in range(3):
                assert await gateway.told(BATCH) == {"epoch": "a1", "seq": 5}
            longer = (*BATCH.events, DeviceEvent(seq=6, at=1.6e9, kind="removed", model="m"))
            assert await gateway.told(Batch(epoch="a1", events=longer)) == {"epoch": "a1", "seq": 6}
            await gateway.told(BATCH)
            assert len(entries(database)) == 4
            await gateway.told(Batch(epoch="b2", events=BATCH.events[:1]))
            await gateway.told(BATCH, "gw-2")

    run(test)
    assert len(entries(database)) == 5, "a new epoch is a new store"
    assert len(entries(database, "gw-2")) == 3, "and a thing is a thing"


def test_what_cannot_be_stored_is_not_answered(mosquitto, database):
    def refuse(connection, cursor, statement, *_) -> None:
        if refusing and "device_events" in statement and "INSERT" in statement:
            refused.append(statement)
            raise sa.exc.OperationalError(statement, {}, Exception("database or disk is full"))

    refusing, refused = [True], []
    sa.event.listen(database.engine, "before_cursor_execute", refuse)

    async def test() -> None:
        async with server(mosquitto.url, database), device(mosquitto.url) as gateway:
            await gateway.tell(BATCH)
            await until(lambda: refused)
            refusing.clear()
            assert await gateway.told(BATCH) == {"epoch": "a1", "seq": 5}
            assert len(gateway.answers) == 1

    run(test)
    assert len(entries(database)) == 3


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"epoch": "a1", "events": []}',
        b'{"epoch": "\\u0000", "events": [{"seq": 1, "at": 1, "kind": "failed"}]}',
        b'{"epoch": "a1", "events": [{"seq": -1, "at": 1, "kind": "failed"}]}',
        b'{"epoch": "a1", "events": [{"seq": 1, "at": 1e300, "kind": "failed"}]}',
        b'{"epoch": "a1", "events": [{"seq": 99999999999999999999, "at": 1, "kind": "failed"}]}',
        b'{"epoch": "a1", "events": [{"seq": 1, "at": 1, "kind": "x"}], "y": "' + b"z" * 10**5,
    ],
)
def test_nonsense_of_one_device_is_nobody_elses(mosquitto, database, payload):
    async def test() -> None:
        async with server(mosquitto.url, database), device(mosquitto.url) as gateway:
            await gateway.tell(payload, "gw-2")
            await gateway.told(BATCH)

    run(test)
    assert len(entries(database)) == 3
    assert entries(database, "gw-2") == []


def test_a_newer_agents_events_are_told_as_they_are(mosquitto, database):
    newer = DeviceEvent(seq=1, at=1.0, kind="warm\x1b[2J", model="m", error="so\nwhat")

    async def test() -> None:
        async with server(mosquitto.url, database), device(mosquitto.url) as gateway:
            await gateway.told(Batch(epoch="a1", events=(newer,)))

    run(test)
    assert texts(database) == [("agent.warm[2J", "m sowhat")]


def test_a_killed_server_answers_what_came_while_it_was_dead(mosquitto, tmp_path):
    async def test() -> None:
        with servers() as start:
            options = tmp_path / "data", "--broker", mosquitto.url
            killed = start(*options)
            async with device(mosquitto.url) as gateway:
                await gateway.told(BATCH)
                killed.kill()
                later = (*BATCH.events, DeviceEvent(seq=6, at=1.6e9, kind="removed", model="m"))
                await gateway.tell(Batch(epoch="a1", events=later))
                await asyncio.to_thread(start, *options)
                await until(lambda: {"epoch": "a1", "seq": 6} in gateway.answers)

    run(test)
    database = Database(f"sqlite:///{tmp_path / 'data' / 'fleet.db'}")
    try:
        assert len(entries(database)) == 4
    finally:
        database.close()


def test_people_see_when_it_happened_by_the_device_where_that_was_not_now():
    event = Event(kind="agent.failed", text="m failed", thing="gw-1", device_time=1.6e9)
    [_, late] = fleet_text.audit([AuditEntry(id=1, at=1.7e9, event=event)]).splitlines()
    [_, prompt] = fleet_text.audit([AuditEntry(id=1, at=1.6e9 + 1, event=event)]).splitlines()
    assert "m failed (by the device's clock 2020-09-1" in late
    assert "device's clock" not in prompt
