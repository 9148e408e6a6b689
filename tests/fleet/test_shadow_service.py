"""The shadow service over a real broker: who hears what, when, and what is refused."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing

import msgspec
import pytest
import sqlalchemy as sa

from edge_sdk.fleet.bus import FleetBus
from edge_sdk.fleet.database.engine import Database
from edge_sdk.fleet.shadow_service import Change
from edge_sdk.shadow.topics import ROOTS
from edge_sdk.transport.address import BrokerAddress
from edge_sdk.transport.link import Message
from tests.fleet.speaking import PING, held, run, service, speaker, until

EDGE, AWS = ROOTS


@pytest.fixture
def database(tmp_path):
    with closing(Database(f"sqlite:///{tmp_path / 'fleet.db'}")) as database:
        yield database


def reported(**values):
    return {"state": {"reported": values}}


def desired(**values):
    return {"state": {"desired": values}}


def test_an_update_is_answered_where_it_came_from_and_told_on_every_root(mosquitto, database):
    async def test():
        async with service(mosquitto.url, database), speaker(mosquitto.url) as client:
            suffix, content = await client.ask("a", "update", desired(x=1), root=AWS)
            assert (suffix, content["version"]) == ("accepted", 1)
            for root in ROOTS:
                (delta,) = await client.on(f"{root}/a/shadow/update/delta")
                (documents,) = await client.on(f"{root}/a/shadow/update/documents")
                assert delta["state"] == {"x": 1}
                assert documents["current"]["state"] == {"desired": {"x": 1}}
                # Deletions are in no delta: who follows the shadow needs what was written.
                (accepted,) = await client.on(f"{root}/a/shadow/update/accepted")
                assert accepted["state"] == {"desired": {"x": 1}}
            # One document under both roots; a question is answered where it was asked.
            _, content = await client.ask("a", "get", root=EDGE)
            assert content["state"]["desired"] == {"x": 1}
            assert not any(topic == f"{AWS}/a/shadow/get/accepted" for topic, _ in client.heard)

    run(test)


def test_named_shadows_and_the_classic_one_are_apart(mosquitto, database):
    async def test():
        async with service(mosquitto.url, database), speaker(mosquitto.url) as client:
            await client.ask("a", "update", reported(x=1), shadow="models")
            suffix, content = await client.ask("a", "get")
            assert (suffix, content["code"]) == ("rejected", 404)
            _, content = await client.ask("a", "get", shadow="models")
            assert content["state"] == {"reported": {"x": 1}}

    run(test)


def test_requests_of_many_things_are_committed_together(mosquitto, database):
    async def test():
        async with service(mosquitto.url, database) as shadows, speaker(mosquitto.url) as client:
            commits = 0

            @sa.event.listens_for(database.engine, "commit")
            def _(_):
                nonlocal commits
                commits += 1

            async with held(database):  # all come while the database is busy
                tokens = [await client.send(f"t-{i}", "update", reported(i=i)) for i in range(200)]
                await until(lambda: len(shadows._in_flight) == 200)
            for token in tokens:
                assert (await client.answer(token))[0] == "accepted"
            assert 1 <= commits <= 2  # the first one may have been under way alone

    run(test)


def test_the_servers_own_requests_reach_the_thing(mosquitto, database):
    async def test():
        changes: list[Change] = []
        async with service(mosquitto.url, database) as shadows, speaker(mosquitto.url) as client:
            shadows.watch(changes.append)
            payload = msgspec.json.encode(desired(x=1))
            accepted, *_ = await shadows.submit("a", "models", "update", payload)
            assert accepted.suffix == "accepted"
            for root in ROOTS:
                assert await client.on(f"{root}/a/shadow/name/models/update/delta")
            (rejected,) = await shadows.submit("a", "models", "update", b"{")
            assert rejected.suffix == "rejected"
            await shadows.submit("a", "models", "get", b"")
            assert [(change.thing, change.name) for change in changes] == [("a", "models")]
            assert changes[0].shadow.desired.state == {"x": 1}

    run(test)


def test_too_many_requests_of_one_thing_are_refused_and_others_are_not(mosquitto, database):
    async def test():
        async with service(mosquitto.url, database) as shadows, speaker(mosquitto.url) as client:
            async with held(database):
                many = [await client.send("busy", "update", reported(i=i)) for i in range(15)]
                other = await client.send("calm", "update", reported(x=1))
                refused = [await client.answer(token) for token in many[10:]]
                assert {(suffix, content["code"]) for suffix, content in refused} == {
                    ("rejected", 429)
                }
            assert {(await client.answer(token))[0] for token in [*many[:10], other]} == {
                "accepted"
            }
            assert (await client.ask("busy", "get"))[1]["state"] == {"reported": {"i": 9}}
            assert not shadows._in_flight

    run(test)


def test_nothing_is_said_before_it_is_committed(mosquitto, database):
    async def test():
        async with service(mosquitto.url, database), speaker(mosquitto.url) as client:
            asked, proceed = threading.Event(), threading.Event()

            @sa.event.listens_for(database.engine, "commit")
            def _(_):
                asked.set()
                assert proceed.wait(10)

            token = await client.send("a", "update", desired(x=1))
            await until(asked.is_set)
            await client.round_trip()
            assert [topic for topic, _ in client.heard] == [PING]
            proceed.set()
            assert (await client.answer(token))[0] == "accepted"

    run(test)


def test_a_failed_commit_refuses_writes_answers_reads_and_stores_nothing(mosquitto, database):
    async def test():
        async with service(mosquitto.url, database) as shadows, speaker(mosquitto.url) as client:
            await client.ask("a", "update", reported(x=1))
            fired = []

            @sa.event.listens_for(database.engine, "commit", once=True)
            def _(_):
                fired.append("commit")
                raise sa.exc.OperationalError("COMMIT", None, Exception("full"))

            async with held(database):
                writes = [await client.send(t, "update", reported(x=2)) for t in ("a", "b")]
                read = await client.send("a", "get")
                await until(lambda: shadows._in_flight == {"a": 2, "b": 1})
            for token in writes:
                suffix, content = await client.answer(token)
                assert (suffix, content["code"]) == ("rejected", 500)
            assert fired
            suffix, content = await client.answer(read)
            assert (suffix, content["state"], content["version"]) == (
                "accepted", {"reported": {"x": 1}}, 1,
            )  # fmt: skip
            suffix, content = await client.ask("a", "update", reported(x=3))
            assert (suffix, content["version"]) == ("accepted", 2)

    run(test)


def test_what_a_server_had_not_answered_the_next_one_does(mosquitto, database):
    async def test():
        async with speaker(mosquitto.url) as client:
            async with held(database), service(mosquitto.url, database) as shadows:
                token = await client.send("a", "update", reported(x=1))
                await until(lambda: shadows._in_flight)
            await client.round_trip()
            assert [topic for topic, _ in client.heard] == [PING]
            async with service(mosquitto.url, database):
                suffix, content = await client.answer(token)
                assert (suffix, content["version"]) == ("accepted", 1)

    run(test)


def test_what_comes_while_no_server_is_there_is_answered_by_the_next(mosquitto, database):
    async def test():
        async with speaker(mosquitto.url) as client:
            async with service(mosquitto.url, database):
                pass
            token = await client.send("a", "update", reported(x=1))
            async with service(mosquitto.url, database):
                assert (await client.answer(token))[0] == "accepted"

    run(test)


def test_the_service_goes_on_after_the_broker_was_away(mosquitto, database):
    async def test():
        async with service(mosquitto.url, database) as shadows, speaker(mosquitto.url) as client:
            await client.ask("a", "update", reported(x=1))
            mosquitto.stop()
            await until(lambda: not client.client.connected)
            changes: list[Change] = []
            shadows.watch(changes.append)
            submitted = asyncio.ensure_future(
                shadows.submit("a", "", "update", msgspec.json.encode(desired(y=2)))
            )
            await until(lambda: changes)
            # It is stored; but who submits it shall not believe that the thing was told.
            assert not submitted.done()
            mosquitto.start()
            (delta,) = await client.on(f"{EDGE}/a/shadow/update/delta")
            assert delta["state"] == {"y": 2}
            assert (await submitted)[0].suffix == "accepted"
            suffix, content = await client.ask("a", "update", reported(x=2))
            assert (suffix, content["version"]) == ("accepted", 3)

    run(test)


def test_a_handler_that_fails_gets_the_next_message(mosquitto, caplog):
    async def test():
        seen: list[bytes] = []

        async def handler(received):
            if received.payload == b"bad":
                raise KeyError("bad")
            seen.append(received.payload)

        bus = FleetBus(BrokerAddress.parse(mosquitto.url), "bus")
        bus.subscribe("edge/things/+/presence", handler)
        running = asyncio.ensure_future(bus.run())
        await until(lambda: bus.connected)
        topic = "edge/things/a/presence"
        await bus.publish([Message(topic, b"bad"), Message(topic, b"good")])
        await until(lambda: seen == [b"good"])
        running.cancel()
        await asyncio.wait([running])

    run(test)
    assert "edge/things/a/presence" in caplog.text
