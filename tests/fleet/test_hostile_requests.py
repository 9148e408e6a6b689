"""Requests that no honest client sends must not end the service, or act twice."""

from __future__ import annotations

from contextlib import closing

import pytest

from edge_sdk.fleet.database.engine import Database
from edge_sdk.transport.link import Message
from tests.fleet.speaking import run, service, speaker

UPDATE = "edge/things/a/shadow/update"


@pytest.fixture
def database(tmp_path):
    with closing(Database(f"sqlite:///{tmp_path / 'fleet.db'}")) as database:
        yield database


@pytest.mark.parametrize("length", [200, 5_000, 65_535 - len("edge/things//shadow/get")])
def test_a_name_as_long_as_mqtt_allows_does_no_harm(mosquitto, database, length):
    async def test():
        async with service(mosquitto.url, database), speaker(mosquitto.url) as client:
            # Its reply would not fit into a packet.
            await client.send("x" * length, "get")
            await client.round_trip()
            assert (await client.ask("a", "get"))[1]["code"] == 404

    run(test)


def test_a_retained_request_is_done_once(mosquitto, database):
    async def test():
        async with speaker(mosquitto.url) as client:
            async with service(mosquitto.url, database):
                body = b'{"state": {"reported": {"x": 1}}}'
                await client.client.publish([Message(UPDATE, body, retain=True)])
                await client.on(f"{UPDATE}/accepted")
                await client.ask("a", "update", {"state": {"reported": {"x": 2}}})
            # The broker gives it to every new subscriber.
            async with service(mosquitto.url, database):
                _, content = await client.ask("a", "get")
                assert (content["version"], content["state"]) == (2, {"reported": {"x": 2}})

    run(test)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (bytes(range(256)) * 4000, 415),
        (b"[" * 1_000_000, 400),
        (b'{"state":{"desired":' + b'{"a":' * 5000 + b"1" + b"}" * 5002, 400),
        (b'{"state":{"desired":{"a":' + b"9" * 500_000 + b"}}}", 400),
        (b'{"state":{"desired":{"a":"' + b"x" * 1_000_000 + b'"}}}', 413),
    ],
)
def test_a_payload_of_any_kind_is_refused(mosquitto, database, payload, code):
    async def test():
        async with service(mosquitto.url, database), speaker(mosquitto.url) as client:
            await client.client.publish([Message(UPDATE, payload)])
            (rejected,) = await client.on(f"{UPDATE}/rejected")
            assert rejected["code"] == code

    run(test)
