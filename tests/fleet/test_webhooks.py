"""Webhooks: written down with what they tell, signed, and sent until they are taken."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import sqlalchemy as sa

from edge_sdk.errors import ConfigError
from edge_sdk.fleet.config import WebhookConfig
from edge_sdk.fleet.database.engine import Database
from edge_sdk.fleet.rollout.events import Event
from edge_sdk.fleet.webhooks import Webhooks, new_secret, signature
from tests.fleet.speaking import run, until

ABORTED = Event(kind="rollout.aborted", text="too many failures", rollout=7, model="digits")
# The example of https://www.standardwebhooks.com's reference implementations.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Clock:
    """Seconds since 1970 that pass only when they are told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Receiver:
    """Takes webhooks, after it has refused some.

    Attributes:
        url: Where it listens.
        taken: Headers and content of those it took.
        refusals: How many it still refuses.
        refused: How many it has refused.
    """

    def __init__(self, refusals: int = 0) -> None:
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.refusals, self.refused = refusals, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                refuses = outer.refused < outer.refusals
                outer.refused += refuses
                if not refuses:
                    outer.taken.append((dict(self.headers), body))
                self.send_response(503 if refuses else 204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"


@contextmanager
def receiver(refusals: int = 0) -> Iterator[Receiver]:
    made = Receiver(refusals)
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        thread.join()
        made.server.server_close()


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'fleet.db'}")
    yield database
    database.close()


def waiting(database: Database) -> list[Any]:
    with database.engine.connect() as connection:
        return list(connection.execute(sa.text("SELECT attempts, due_at FROM deliveries")))


def hook(url: str, **options: Any) -> WebhookConfig:
    return WebhookConfig(url=url, secret=SECRET, **options)


async def tell(webhooks: Webhooks, database: Database, clock: Clock, *events: Event) -> None:
    await database.write(lambda connection: webhooks.enqueue(connection, events, clock()))
    webhooks.wake()


def test_a_message_is_signed_as_the_specification_says():
    # From the specification's own libraries.
    signed = signature(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["", "secret", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!"])
def test_a_secret_that_is_none_is_refused_with_one_that_is(secret):
    with pytest.raises(ConfigError) as caught:
        signature(secret, "id", 0, b"")
    assert "whsec_" in (caught.value.remedy or "")
    signature(new_secret(), "id", 0, b"")


def test_an_event_is_posted_once_and_can_be_verified(database):
    clock = Clock()

    async def test() -> None:
        with receiver() as other:
            webhooks = Webhooks([hook(other.url)], database, clock)
            sending = asyncio.ensure_future(webhooks.run())
            await tell(webhooks, database, clock, ABORTED)
            await until(lambda: other.taken and not waiting(database))
            sending.cancel()
        [(headers, body)] = other.taken
        assert json.loads(body) == {
            "type": "rollout.aborted",
            "timestamp": "2023-11-14T22:13:20.000+00:00",
            "data": {"text": "too many failures", "rollout": 7, "model": "digits", "by": "fleet"},
        }
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"

    run(test)


def test_only_the_events_asked_for_are_sent(database):
    clock = Clock()

    async def test() -> None:
        with receiver() as other:
            webhooks = Webhooks([hook(other.url, events=("device.*",))], database, clock)
            sending = asyncio.ensure_future(webhooks.run())
            offline = Event(kind="device.offline", text="gone", thing="gw-1")
            await tell(webhooks, database, clock, ABORTED, offline)
            await until(lambda: other.taken and not waiting(database))
            sending.cancel()
        assert [json.loads(body)["type"] for _, body in other.taken] == ["device.offline"]

    run(test)


def test_what_is_refused_is_sent_again_later_under_the_same_name(database):
    clock = Clock()

    async def test() -> None:
        with receiver(refusals=2) as other:
            webhooks = Webhooks([hook(other.url)], database, clock)
            sending = asyncio.ensure_future(webhooks.run())
            await tell(webhooks, database, clock, ABORTED)
            waits = []
            for attempt in (1, 2):
                await until(lambda attempt=attempt: waiting(database)[0][0] == attempt)
                waits.append(waiting(database)[0][1] - clock.now)
                clock.now = waiting(database)[0][1]
                webhooks.wake()
            await until(lambda: other.taken and not waiting(database))
            sending.cancel()
            assert other.refused == 2
        assert 3.75 <= waits[0] <= 6.25
        assert 7.5 <= waits[1] <= 12.5

    run(test)


def test_what_waits_is_sent_by_the_next_server(database):
    clock = Clock()

    async def test() -> None:
        with receiver() as other:
            killed = Webhooks([hook(other.url)], database, clock)
            await database.write(lambda connection: killed.enqueue(connection, [ABORTED], clock()))
            sending = asyncio.ensure_future(Webhooks([hook(other.url)], database, clock).run())
            await until(lambda: other.taken and not waiting(database))
            sending.cancel()

    run(test)


def test_what_nobody_takes_is_given_up_after_days(database):
    clock = Clock()

    async def test() -> None:
        with receiver(refusals=100) as other:
            webhooks = Webhooks([hook(other.url)], database, clock)
            sending = asyncio.ensure_future(webhooks.run())
            began = clock.now
            await tell(webhooks, database, clock, ABORTED)
            attempts = 1
            while True:
                await until(
                    lambda n=attempts: not waiting(database) or waiting(database)[0][0] == n
                )
                if not waiting(database):
                    break
                clock.now = waiting(database)[0][1]
                attempts += 1
                webhooks.wake()
            sending.cancel()
            assert (other.refused, other.taken) == (24, [])
            assert 2 * 86400 < clock.now - began < 4 * 86400

    run(test)


def test_a_transaction_that_fails_sends_nothing(database):
    clock = Clock()
    webhooks = Webhooks([hook("http://127.0.0.1:1/")], database, clock)

    def fail(connection: sa.Connection) -> None:
        webhooks.enqueue(connection, [ABORTED], clock())
        raise ZeroDivisionError

    async def test() -> None:
        with pytest.raises(ZeroDivisionError):
            await database.write(fail)

    run(test)
    assert waiting(database) == []
