"""The devices of a fleet: who is there, since when not, and what each reports.

All are held in memory; the database has what a server that starts anew must know. A device is
known from the first sign of it, its presence or its shadow ``models``, on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import msgspec
import sqlalchemy as sa

from edge_sdk.fleet.database.engine import Database
from edge_sdk.fleet.rollout.device import Device
from edge_sdk.fleet.rollout.events import Event
from edge_sdk.fleet.shadow_service import Change
from edge_sdk.shadow import document
from edge_sdk.shadow.document import Shadow
from edge_sdk.shadow.models import SHADOW, Desired, Presence, Reported, ReportedAgent
from edge_sdk.shadow.topics import valid_thing
from edge_sdk.transport.mqtt.codec import Received

PRESENCE = "edge/things/+/presence"
"""Filter of what devices say of their being there."""
SILENCE = 1.5
"""Heartbeats that a device may be late by, as a share of their interval."""
DRIFT = 0.25
"""Population stability index from which on outputs are commonly said to have shifted."""

_LOG = logging.getLogger(__name__)
_SAVE_EVERY_S = 10.0
_NO_PRESENCE = Presence(online=False, session="")
_Content = TypeVar("_Content", Desired, Reported)
_TABLE = sa.table(
    "devices", sa.column("thing"), sa.column("online"), sa.column("last_seen"),
    sa.column("labels"),
)  # fmt: skip
_SHADOWS = sa.table("shadows", sa.column("thing"), sa.column("name"), sa.column("document"))
_SAVE = sa.text(
    "INSERT INTO devices (thing, online, last_seen, labels)"
    " VALUES (:thing, :online, :last_seen, :labels)"
    " ON CONFLICT (thing) DO UPDATE SET online = excluded.online,"
    " last_seen = excluded.last_seen, labels = excluded.labels"
)


@dataclass(frozen=True)
class _Contact:
    """The connection that a device was last heard on."""

    session: str
    interval: float
    heard: float


class Devices:
    """What is known of every device, kept up to date.

    Args:
        database: Where it is kept.
        clock: Seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._devices: dict[str, Device] = {}
        self._contacts: dict[str, _Contact] = {}
        self._shadows: dict[str, Shadow] = {}  # changed, and not looked at yet
        self._unsaved: set[str] = set()
        self._saved_at = clock()
        self._deaf_until = clock()
        self._events: list[Event] = []

    @property
    def all(self) -> Mapping[str, Device]:
        """Every device, by thing."""
        return MappingProxyType(self._devices)

    async def load(self) -> None:
        """Reads what the server knew when it ended."""

        def read(connection: sa.Connection) -> tuple[list[sa.Row[tuple[object, ...]]], ...]:
            shadows = sa.select(_SHADOWS.c.thing, _SHADOWS.c.document)
            return (
                list(connection.execute(sa.select(*_TABLE.c))),
                list(connection.execute(shadows.where(_SHADOWS.c.name == SHADOW))),
            )

        rows, shadows = await self._database.read(read)
        for row in rows:
            labels = msgspec.json.decode(row.labels, type=dict[str, str])
            self._devices[row.thing] = Device(
                thing=row.thing, online=bool(row.online), last_seen=row.last_seen, assigned=labels
            )
            # Whoever is still there will say so before long.
            self._contacts[row.thing] = _Contact("", _NO_PRESENCE.interval, self._clock())
        for row in shadows:
            self._look(row.thing, document.decode(row.document))
        self._events.clear()

    async def receive(self, received: Received) -> None:
        """Takes a message on a topic of :data:`PRESENCE`."""
        thing = received.topic.split("/")[-2]
        if not received.payload:  # a device was forgotten
            return
        try:
            presence = msgspec.json.decode(received.payload, type=Presence)
        except msgspec.DecodeError as error:
            _LOG.warning("the presence of %s is none: %s", thing, error)
            return
        if valid_thing(thing):
            self._hear(thing, presence, retained=received.retain)

    def changed(self, change: Change) -> bool:
        """Takes a shadow that has changed; says whether it is one that matters."""
        if change.name == SHADOW:
            self._shadows[change.thing] = change.shadow
        return change.name == SHADOW

    def label(self, thing: str, labels: Mapping[str, str | None]) -> Device:
        """Gives a device that is known labels, or takes away those that are ``None``."""
        device = self._devices[thing]
        merged = {**device.assigned, **labels}
        kept = {name: value for name, value in sorted(merged.items()) if value is not None}
        return self._replace(device, assigned=kept)

    async def forget(self, thing: str) -> None:
        """Forgets a device; whatever is heard of it from now on makes it known anew."""
        row = sa.delete(_TABLE).where(_TABLE.c.thing == thing)
        await self._database.write(lambda connection: connection.execute(row))
        self._unsaved.discard(thing)
        for known in (self._devices, self._contacts, self._shadows):
            known.pop(thing, None)

    def look(self, connected: bool) -> tuple[Event, ...]:
        """Brings everything up to date.

        Args:
            connected: Whether the broker is reached, so that silence means anything.

        Returns:
            What happened since the last call.
        """
        for thing, shadow in self._shadows.items():
            self._look(thing, shadow)
        self._shadows.clear()
        now = self._clock()
        if not connected:
            self._deaf_until = now
        for thing, contact in self._contacts.items():
            if now - max(contact.heard, self._deaf_until) > SILENCE * contact.interval:
                self._set_online(self._devices[thing], False, f"silent for {SILENCE} heartbeats")
        events, self._events = tuple(self._events), []
        return events

    async def save(self, at_once: bool = False) -> None:
        """Writes down what has changed: now and then, or at once."""
        now = self._clock()
        if not self._unsaved or (not at_once and now - self._saved_at < _SAVE_EVERY_S):
            return
        rows = [_row(self._devices[thing]) for thing in self._unsaved]
        self._unsaved.clear()
        self._saved_at = now
        try:
            await self._database.write(lambda connection: connection.execute(_SAVE, rows))
        except sa.exc.SQLAlchemyError:
            self._unsaved.update(str(row["thing"]) for row in rows)
            raise

    def _hear(self, thing: str, presence: Presence, *, retained: bool) -> None:
        known = self._contacts.get(thing)
        device = self._devices.get(thing) or Device(thing=thing)
        if not presence.online:
            # The will of a connection that another one has taken the place of says nothing.
            if known is None or known.session in ("", presence.session) or not device.online:
                self._set_online(device, False, "said farewell, or its connection broke off")
            return
        now = self._clock()
        self._contacts[thing] = _Contact(presence.session, max(0.1, presence.interval), now)
        if not retained or device.last_seen is None:
            device = self._replace(device, last_seen=now)
        self._set_online(device, True, "is back")

    def _set_online(self, device: Device, online: bool, text: str) -> None:
        if device.thing in self._devices and device.online == online:
            return
        self._replace(device, online=online)
        kind = "device.online" if online else "device.offline"
        self._events.append(Event(kind=kind, text=text, thing=device.thing))

    def _look(self, thing: str, shadow: Shadow) -> None:
        if not shadow.exists and thing not in self._devices:
            return
        before = self._devices.get(thing) or Device(thing=thing)
        reported = _read(shadow.reported.state, Reported, thing) if shadow.exists else Reported()
        desired = _read(shadow.desired.state, Desired, thing) if shadow.exists else Desired()
        after = self._replace(
            before,
            agent=reported.agent or ReportedAgent(),
            desired=desired.models,
            models=reported.models,
        )
        self._events += _drifts(before, after)

    def _replace(self, device: Device, **changes: object) -> Device:
        after = msgspec.structs.replace(device, **changes)
        self._devices[device.thing] = after
        if changes.keys() & {"online", "last_seen", "assigned"}:
            self._unsaved.add(device.thing)
        return after


def _read(state: document.Object, type_: type[_Content], thing: str) -> _Content:
    try:
        return msgspec.convert(state, type_)
    except msgspec.ValidationError as error:
        # Anybody with access may write a shadow; one device's nonsense is only its own.
        _LOG.warning("the shadow %s of %s is not understood: %s", SHADOW, thing, error)
        return type_()


def _drifts(before: Device, after: Device) -> Iterable[Event]:
    """Models whose outputs have begun to drift."""
    for name, model in after.models.items():
        old = before.models.get(name)
        known = old.health.drift if old and old.health and old.digest == model.digest else None
        drift = model.health.drift if model.health else None
        if drift is not None and drift > DRIFT and (known is None or known <= DRIFT):
            yield Event(
                kind="model.drift", text=f"outputs drift by {drift:.2f} (limit {DRIFT})",
                thing=after.thing, model=name, version=model.version,
            )  # fmt: skip


def _row(device: Device) -> dict[str, object]:
    return {
        "thing": device.thing,
        "online": device.online,
        "last_seen": device.last_seen,
        "labels": msgspec.json.encode(device.assigned).decode(),
    }
