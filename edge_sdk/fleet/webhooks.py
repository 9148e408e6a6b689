"""Tells other programs what happens in the fleet, by HTTP, as Standard Webhooks has it.

A message is written to the database in the transaction of what it tells, and sent until the other
side takes it or three days have passed. Its identifier stays the same over all attempts, and
it is signed (https://www.standardwebhooks.com): headers ``webhook-id``, ``webhook-timestamp`` and
``webhook-signature: v1,`` with the base64 of HMAC-SHA256 over ``id.timestamp.body``.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import random
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from fnmatch import fnmatchcase

import msgspec
import sqlalchemy as sa
import urllib3

from edge_sdk.errors import ConfigError
from edge_sdk.fleet.config import WebhookConfig
from edge_sdk.fleet.database.engine import Database
from edge_sdk.fleet.rollout.events import Event

_LOG = logging.getLogger(__name__)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 5.0, 6 * 3600.0
_ATTEMPTS = 24  # the waits add up to three days
_AT_ONCE = 16
_TIMEOUT_S = 15.0
_PREFIX = "whsec_"
_TABLE = sa.table(
    "deliveries", sa.column("id"), sa.column("url"), sa.column("body", sa.LargeBinary),
    sa.column("attempts"), sa.column("due_at"),
)  # fmt: skip


@dataclass(frozen=True)
class _Delivery:
    id: str
    url: str
    body: bytes
    attempts: int


def new_secret() -> str:
    """A secret for one webhook."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(24)).decode()


def signature(secret: str, identifier: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``.

    Args:
        secret: ``whsec_`` and base64.
        identifier: Of the message.
        timestamp: Of this attempt, in seconds since 1970.
        body: Of the message.

    Raises:
        ConfigError: The secret is something else.
    """
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith(_PREFIX) or len(key) < 16:
        raise ConfigError(
            "a secret is whsec_ and the base64 of 24 to 64 random bytes",
            where="webhooks.secret",
            remedy=f"take this one: {new_secret()}",
        )
    signed = f"{identifier}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


class Webhooks:
    """Writes down what is to be sent, and sends it.

    Args:
        hooks: Who is told what.
        database: Where messages wait.
        clock: Seconds since 1970.

    Raises:
        ConfigError: A secret is none.
    """

    def __init__(
        self, hooks: Sequence[WebhookConfig], database: Database, clock: Callable[[], float]
    ) -> None:
        for hook in hooks:
            signature(hook.secret, "", 0, b"")
        self._hooks = {hook.url: hook for hook in hooks}
        self._database = database
        self._clock = clock
        self._more = asyncio.Event()
        self._pool = urllib3.PoolManager(
            timeout=_TIMEOUT_S, retries=False, maxsize=_AT_ONCE, block=True
        )

    def enqueue(self, connection: sa.Connection, events: Iterable[Event], now: float) -> None:
        """Writes messages down, in the caller's transaction."""
        rows = [
            {
                "id": f"msg_{secrets.token_hex(16)}",
                "url": hook.url,
                "body": _body(event, now),
                "attempts": 0,
                "due_at": now,
            }
            for event in events
            for hook in self._hooks.values()
            if any(fnmatchcase(event.kind, pattern) for pattern in hook.events)
        ]
        if rows:
            connection.execute(sa.insert(_TABLE), rows)

    def wake(self) -> None:
        """Says that there may be something to send; to be called after the commit."""
        self._more.set()

    async def run(self) -> None:
        """Sends what is due until it is cancelled."""
        if not self._hooks:
            await asyncio.Event().wait()
        while True:
            self._more.clear()
            try:
                due = await self._database.read(self._due)
                await asyncio.gather(*map(self._deliver, due))
                wait = await self._database.read(self._wait)
            except sa.exc.SQLAlchemyError:
                _LOG.exception("webhooks cannot be read or written down")
                wait = _FIRST_WAIT_S
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._more.wait(), wait)

    def _due(self, connection: sa.Connection) -> list[_Delivery]:
        query = (
            sa.select(_TABLE.c.id, _TABLE.c.url, _TABLE.c.body, _TABLE.c.attempts)
            .where(_TABLE.c.due_at <= self._clock())
            .order_by(_TABLE.c.due_at)
            .limit(_AT_ONCE)
        )
        return [_Delivery(*row) for row in connection.execute(query)]

    def _wait(self, connection: sa.Connection) -> float:
        first = connection.execute(sa.select(sa.func.min(_TABLE.c.due_at))).scalar()
        return 3600.0 if first is None else max(0.0, float(first) - self._clock())

    async def _deliver(self, delivery: _Delivery) -> None:
        hook = self._hooks.get(delivery.url)
        if hook is None:  # no longer configured
            problem = ""
        else:
            problem = await asyncio.to_thread(self._post, hook, delivery)
        if problem:
            problem = await self._postpone(delivery, problem)
        if not problem:
            done = sa.delete(_TABLE).where(_TABLE.c.id == delivery.id)
            await self._database.write(lambda connection: connection.execute(done))

    async def _postpone(self, delivery: _Delivery, problem: str) -> str:
        """Plans another attempt; gives no problem where there shall be none."""
        attempts = delivery.attempts + 1
        if attempts == _ATTEMPTS:
            _LOG.error("webhook %s: %s; given up", delivery.url, problem)
            return ""
        _LOG.warning("webhook %s: %s (attempt %d)", delivery.url, problem, attempts)
        wait = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0**delivery.attempts)
        wait *= random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, keeps no secret
        later = sa.update(_TABLE).where(_TABLE.c.id == delivery.id)
        later = later.values(attempts=attempts, due_at=self._clock() + wait)
        await self._database.write(lambda connection: connection.execute(later))
        return problem

    def _post(self, hook: WebhookConfig, delivery: _Delivery) -> str:
        """Sends a message once; says what went wrong."""
        now = int(self._clock())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(hook.secret, delivery.id, now, delivery.body),
        }
        try:
            response = self._pool.request(
                "POST", hook.url, body=delivery.body, headers=headers, redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            return str(error)
        return "" if 200 <= response.status < 300 else f"answers {response.status}"


def _body(event: Event, now: float) -> bytes:
    moment = datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="milliseconds")
    data = {name: value for name, value in msgspec.structs.asdict(event).items() if value}
    return msgspec.json.encode({"type": data.pop("kind"), "timestamp": moment, "data": data})
