"""What happened in the fleet, and who did it: kept in the database, oldest first."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import sqlalchemy as sa

from edge_sdk.fleet.rollout.events import AuditEntry, Event

_TABLE = sa.table(
    "audit", sa.column("id"), sa.column("at"), sa.column("rollout"), sa.column("thing"),
    sa.column("document"),
)  # fmt: skip
# They come by the thousand where connections are bad, and are of use only while they are new.
_NOT_KEPT = frozenset(("device.online", "device.offline"))


def record(connection: sa.Connection, events: Iterable[Event], now: float) -> None:
    """Writes events down, in the caller's transaction."""
    rows = [
        {
            "at": now,
            "rollout": event.rollout,
            "thing": event.thing,
            "document": msgspec.json.encode(event).decode(),
        }
        for event in events
        if event.kind not in _NOT_KEPT
    ]
    if rows:
        connection.execute(sa.insert(_TABLE), rows)


def forget(connection: sa.Connection, before: float) -> None:
    """Drops what happened before a moment, in seconds since 1970."""
    connection.execute(sa.delete(_TABLE).where(_TABLE.c.at < before))


def entries(
    connection: sa.Connection,
    *,
    rollout: int | None = None,
    thing: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> tuple[AuditEntry, ...]:
    """The newest entries, the newest first.

    Args:
        connection: The database.
        rollout: Only of one rollout.
        thing: Only of one device.
        before: Only older ones than this number, to read on where another answer ended.
        limit: At most so many.
    """
    query = sa.select(_TABLE.c.id, _TABLE.c.at, _TABLE.c.document)
    if rollout is not None:
        query = query.where(_TABLE.c.rollout == rollout)
    if thing is not None:
        query = query.where(_TABLE.c.thing == thing)
    if before is not None:
        query = query.where(_TABLE.c.id < before)
    rows = connection.execute(query.order_by(_TABLE.c.id.desc()).limit(limit))
    return tuple(
        AuditEntry(id=row.id, at=row.at, event=msgspec.json.decode(row.document, type=Event))
        for row in rows
    )
