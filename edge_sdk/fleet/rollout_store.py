"""Rollouts in the database."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from edge_sdk.fleet.rollout.late import in_force
from edge_sdk.fleet.rollout.state import ENDED, Member, Rollout
from edge_sdk.fleet.views import RolloutView, rollout_view

_ROLLOUTS = sa.table(
    "rollouts", sa.column("id"), sa.column("ended"), sa.column("document"), sa.column("view")
)
_MEMBERS = sa.table(
    "rollout_members", sa.column("rollout"), sa.column("position"), sa.column("thing"),
    sa.column("document"),
)  # fmt: skip
_UPDATE_MEMBER = sa.text(
    "UPDATE rollout_members SET document = :document"
    " WHERE rollout = :rollout AND position = :position"
)


def create(connection: sa.Connection, rollout: Rollout) -> Rollout:
    """Writes a new rollout down, and gives it its number."""
    # SQLite gives numbers again once their rows are gone; rows are never deleted here.
    last = connection.execute(sa.select(sa.func.max(_ROLLOUTS.c.id))).scalar() or 0
    rollout = msgspec.structs.replace(rollout, id=int(last) + 1)
    connection.execute(sa.insert(_ROLLOUTS), _row(rollout))
    rows = [_member_row(rollout, position) for position in range(len(rollout.members))]
    connection.execute(sa.insert(_MEMBERS), rows)
    return rollout


def update(connection: sa.Connection, before: Rollout, after: Rollout) -> None:
    """Writes down what has changed of a rollout; members may have come to it."""
    statement = sa.update(_ROLLOUTS).where(_ROLLOUTS.c.id == after.id)
    connection.execute(statement.values(**_row(after)))
    changed = [
        _member_row(after, position)
        for position, (old, new) in enumerate(zip(before.members, after.members, strict=False))
        if old is not new
    ]
    if changed:
        connection.execute(_UPDATE_MEMBER, changed)
    added = [
        _member_row(after, position) for position in range(len(before.members), len(after.members))
    ]
    if added:
        connection.execute(sa.insert(_MEMBERS), added)


def unended(connection: sa.Connection) -> tuple[Rollout, ...]:
    """Every rollout that is under way, the oldest first."""
    query = sa.select(_ROLLOUTS.c.document).where(_ROLLOUTS.c.ended == sa.false())
    rows = connection.execute(query.order_by(_ROLLOUTS.c.id))
    return tuple(_with_members(connection, _decoded(row.document)) for row in rows)


def standing(connection: sa.Connection) -> tuple[Rollout, ...]:
    """Every rollout that stays in force, the newest first."""
    query = sa.select(_ROLLOUTS.c.document).where(_ROLLOUTS.c.ended == sa.true())
    rows = connection.execute(query.order_by(_ROLLOUTS.c.id.desc())).scalars()
    return tuple(_with_members(connection, found) for found in in_force(map(_decoded, rows)))


def one(connection: sa.Connection, number: int) -> Rollout | None:
    """A rollout by its number."""
    query = sa.select(_ROLLOUTS.c.document).where(_ROLLOUTS.c.id == number)
    document = connection.execute(query).scalar()
    return None if document is None else _with_members(connection, _decoded(document))


def newest(connection: sa.Connection, limit: int) -> tuple[RolloutView, ...]:
    """The last rollouts, the newest first, without their devices."""
    query = sa.select(_ROLLOUTS.c.view).order_by(_ROLLOUTS.c.id.desc()).limit(limit)
    rows = connection.execute(query).scalars()
    return tuple(msgspec.json.decode(row, type=RolloutView) for row in rows)


def _decoded(document: str) -> Rollout:
    return msgspec.json.decode(document, type=Rollout)


def _with_members(connection: sa.Connection, rollout: Rollout) -> Rollout:
    query = sa.select(_MEMBERS.c.document).where(_MEMBERS.c.rollout == rollout.id)
    rows = connection.execute(query.order_by(_MEMBERS.c.position)).scalars()
    members = tuple(msgspec.json.decode(row, type=Member) for row in rows)
    return msgspec.structs.replace(rollout, members=members)


def _row(rollout: Rollout) -> dict[str, object]:
    document = msgspec.json.encode(msgspec.structs.replace(rollout, members=()))
    return {
        "id": rollout.id,
        "ended": rollout.status in ENDED,
        "document": document.decode(),
        "view": msgspec.json.encode(rollout_view(rollout)).decode(),
    }


def _member_row(rollout: Rollout, position: int) -> dict[str, object]:
    member = rollout.members[position]
    return {
        "rollout": rollout.id,
        "position": position,
        "thing": member.thing,
        "document": msgspec.json.encode(member).decode(),
    }
