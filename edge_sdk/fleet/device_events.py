"""What devices say has happened on them goes into the audit, each event once.

A device sends a batch until it is accepted, so a batch may come again: of every epoch of a
device the database has the last number that was written down, in the same transaction. The
answer goes out after the commit. Where nothing can be stored there is none, and the device asks
again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from edge_sdk.fleet import audit
from edge_sdk.fleet.bus import FleetBus
from edge_sdk.fleet.database.engine import Database, cause
from edge_sdk.fleet.rollout.events import Event
from edge_sdk.fleet.webhooks import Webhooks
from edge_sdk.shadow.events import (
    LARGEST_BATCH,
    Accepted,
    Batch,
    DeviceEvent,
    accepted_topic,
    events_topic,
)
from edge_sdk.shadow.topics import valid_thing
from edge_sdk.transport.link import Message
from edge_sdk.transport.mqtt.codec import Received

_LOG = logging.getLogger(__name__)
_TABLE = sa.table("device_events", sa.column("thing"), sa.column("epoch"), sa.column("seq"))
_REACHED = sa.text(
    "INSERT INTO device_events (thing, epoch, seq) VALUES (:thing, :epoch, :seq)"
    " ON CONFLICT (thing, epoch) DO UPDATE SET seq = excluded.seq"
)
_TEXTS = {
    "installed": "{model} {version} serves",
    "failed": "{model} {version} failed: {error}",
    "rolled_back": "{model} {version} was taken back: {error}",
    "removed": "{model} {version} serves no longer",
    "canary_started": "{model} {version} answers some of the requests",
    "canary_ended": "{model} {version} answers none of the requests any more",
    "dropped": "had no room to keep {count} events, all in all",
}


class _Said(NamedTuple):
    thing: str
    batch: Batch


class DeviceEvents:
    """Takes in what devices tell.

    Args:
        bus: The server's connection; subscribed to at once.
        database: Where the audit is.
        webhooks: Tells other programs.
        clock: Seconds since 1970.
    """

    def __init__(
        self, bus: FleetBus, database: Database, webhooks: Webhooks, clock: Callable[[], float]
    ) -> None:
        self._bus = bus
        self._database = database
        self._webhooks = webhooks
        self._clock = clock
        bus.subscribe_batches((events_topic("+"),), self._receive)

    async def _receive(self, messages: list[Received]) -> None:
        said = [one for one in map(_read, messages) if one]
        answers = await self._store(said)
        self._bus.acknowledge(messages)
        await self._bus.publish(answers)

    async def _store(self, said: list[_Said]) -> list[Message]:
        """Writes down what is new; the answers."""
        try:
            await self._database.write(lambda connection: self._write(connection, said))
        except SQLAlchemyError as error:
            _LOG.error("what %d devices say could not be stored: %s", len(said), cause(error))
            return []
        except Exception:  # noqa: BLE001 - one batch must not end the server
            _LOG.exception("what %d devices say could not be stored", len(said))
            return []
        self._webhooks.wake()
        return [
            Message(
                accepted_topic(thing),
                msgspec.json.encode(Accepted(epoch=batch.epoch, seq=batch.events[-1].seq)),
            )
            for thing, batch in said
        ]

    def _write(self, connection: sa.Connection, said: list[_Said]) -> None:
        reached = _reached(connection, {thing for thing, _ in said})
        events: list[Event] = []
        for thing, batch in said:
            last = reached.get((thing, batch.epoch), -1)
            events += (_event(thing, one) for one in batch.events if one.seq > last)
            reached[thing, batch.epoch] = max(last, batch.events[-1].seq)
        rows = [
            {"thing": thing, "epoch": batch.epoch, "seq": reached[thing, batch.epoch]}
            for thing, batch in said
        ]
        if rows:
            now = self._clock()
            connection.execute(_REACHED, rows)
            audit.record(connection, events, now)
            self._webhooks.enqueue(connection, events, now)


def _read(received: Received) -> _Said | None:
    """What a message says; anybody with access may say anything."""
    thing = received.topic.split("/")[-2]
    if received.retain or not valid_thing(thing) or len(received.payload) > 2 * LARGEST_BATCH:
        return None
    try:
        batch = msgspec.json.decode(received.payload, type=Batch)
    except msgspec.DecodeError as error:
        _LOG.warning("the events of %s are none: %s", thing, error)
        return None
    ordered = sorted(batch.events, key=lambda event: event.seq)
    return _Said(thing, msgspec.structs.replace(batch, events=tuple(ordered)))


def _reached(connection: sa.Connection, things: Iterable[str]) -> dict[tuple[str, str], int]:
    query = sa.select(_TABLE.c.thing, _TABLE.c.epoch, _TABLE.c.seq)
    rows = connection.execute(query.where(_TABLE.c.thing.in_(sorted(things))))
    return {(row.thing, row.epoch): row.seq for row in rows}


def _event(thing: str, one: DeviceEvent) -> Event:
    return Event(
        kind=f"agent.{_printable(one.kind)}",
        text=_printable(_text(one)),
        thing=thing,
        model=_printable(one.model) or None,
        version=_printable(one.version) or None,
        by=thing,
        device_time=one.at,
    )


def _text(one: DeviceEvent) -> str:
    if one.kind == "started":
        times = "once" if one.count == 1 else f"{one.count} times"
        return (
            f"the agent died and began again, {times}" if one.count else "the agent's first start"
        )
    if one.kind in _TEXTS:
        return _TEXTS[one.kind].format_map(msgspec.structs.asdict(one))
    return " ".join(filter(None, (one.model, one.version, one.error)))


def _printable(text: str) -> str:
    return "".join(filter(str.isprintable, text))
