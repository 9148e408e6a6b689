"""Shadows in the database, and what a batch of requests makes of them, in one commit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypedDict

import sqlalchemy as sa

from edge_sdk.shadow import algebra, document
from edge_sdk.shadow.algebra import Outcome
from edge_sdk.shadow.document import TOMBSTONE_S, Shadow
from edge_sdk.shadow.requests import Limits, Request
from edge_sdk.shadow.topics import valid_shadow, valid_thing

_CACHE_BYTES = 64 << 20
_ENTRY_BYTES = 400  # what the interpreter adds to each entry
_KEYS_PER_QUERY = 500
_ATTEMPTS = 3

_TABLE = sa.table("shadows", sa.column("thing"), sa.column("name"), sa.column("document"))
_KEY = sa.tuple_(_TABLE.c.thing, _TABLE.c.name)
# A row changes only from the version that the request was applied to, whoever else writes.
_WRITE = sa.text(
    "INSERT INTO shadows (thing, name, version, document, deleted_at)"
    " VALUES (:thing, :name, :version, :document, :deleted_at)"
    " ON CONFLICT (thing, name) DO UPDATE SET version = excluded.version,"
    " document = excluded.document, deleted_at = excluded.deleted_at"
    " WHERE shadows.version = :base"
)
_FORGET = sa.text("DELETE FROM shadows WHERE deleted_at < :before")


class Key(NamedTuple):
    """What names a shadow; the classic one of a thing has an empty name."""

    thing: str
    name: str

    @classmethod
    def of(cls, request: Request) -> Key:
        """The shadow that a request is on, whatever root it came by."""
        return cls(request.address.thing, request.address.shadow)


class ShadowStore:
    """Applies requests to stored shadows; not for several threads at once.

    Args:
        engine: The database; what is committed on it is durable.
        limits: Of documents.
        cache_bytes: Encoded documents that are kept at hand, most recently used ones first.
    """

    def __init__(
        self, engine: sa.Engine, limits: Limits | None = None, cache_bytes: int = _CACHE_BYTES
    ) -> None:
        self._engine = engine
        self._limits = limits or Limits()
        self._cache = _Cache(cache_bytes)

    def apply(self, requests: Sequence[Request], now: int) -> list[Outcome]:
        """Applies requests in their order; all changes are committed when this returns.

        Raises:
            SQLAlchemyError: Nothing was stored.
        """
        for _ in range(_ATTEMPTS):
            outcomes = self._attempt(requests, now)
            if outcomes is not None:
                return outcomes
        raise sa.exc.OperationalError(str(_WRITE), None, Exception("others write all the time"))

    def forget(self, now: int) -> None:
        """Drops shadows that were deleted longer ago than their version is remembered."""
        with self._engine.begin() as connection:
            connection.execute(_FORGET, {"before": now - TOMBSTONE_S})

    def _attempt(self, requests: Sequence[Request], now: int) -> list[Outcome] | None:
        """The outcomes, unless another server changed one of the shadows in between."""
        documents = self._documents({Key.of(request) for request in requests})
        before = {key: document.decode(held) if held else None for key, held in documents.items()}
        after = dict(before)
        outcomes = []
        for request in requests:
            key = Key.of(request)
            outcome = algebra.apply(after[key], request, now, self._limits)
            after[key] = outcome.shadow
            outcomes.append(outcome)
        changed = [
            _row(key, shadow, before[key])
            for key, shadow in after.items()
            if shadow is not None and shadow is not before[key]
        ]
        if changed and not self._commit(changed):
            return None
        self._cache.put(documents | {Key(r["thing"], r["name"]): r["document"] for r in changed})
        return outcomes

    def _documents(self, keys: set[Key]) -> dict[Key, bytes]:
        """What is stored under each key; empty where nothing is."""
        documents = self._cache.get(keys)
        missing = keys - documents.keys()
        documents |= dict.fromkeys(missing, b"")
        # Nothing is stored under a wrong name, and not every database takes it in a query.
        possible = [key for key in missing if valid_thing(key.thing) and valid_shadow(key.name)]
        if possible:
            with self._engine.connect() as connection:
                for start in range(0, len(possible), _KEYS_PER_QUERY):
                    some = possible[start : start + _KEYS_PER_QUERY]
                    query = sa.select(*_TABLE.c).where(_KEY.in_(some))
                    for thing, name, held in connection.execute(query):
                        documents[Key(thing, name)] = held
        return documents

    def _commit(self, rows: list[_Row]) -> bool:
        # Whether a commit that breaks off took place, only the database knows.
        self._cache.drop(Key(row["thing"], row["name"]) for row in rows)
        with self._engine.connect() as connection, connection.begin() as transaction:
            if connection.execute(_WRITE, rows).rowcount == len(rows):
                return True
            transaction.rollback()
            return False


class _Row(TypedDict):
    thing: str
    name: str
    version: int
    document: bytes
    deleted_at: int | None
    base: int


def _row(key: Key, shadow: Shadow, before: Shadow | None) -> _Row:
    return _Row(
        thing=key.thing,
        name=key.name,
        version=shadow.version,
        document=document.encode(shadow),
        deleted_at=shadow.deleted_at,
        base=before.version if before else 0,
    )


class _Cache:
    """Documents most recently used, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._held: OrderedDict[Key, bytes] = OrderedDict()

    def get(self, keys: Iterable[Key]) -> dict[Key, bytes]:
        return {key: self._held[key] for key in keys if key in self._held}

    def put(self, documents: dict[Key, bytes]) -> None:
        self.drop(documents)
        self._held |= documents
        self._size += sum(map(_cost, documents.items()))
        while self._size > self._limit:
            self._size -= _cost(self._held.popitem(last=False))

    def drop(self, keys: Iterable[Key]) -> None:
        for key in keys:
            held = self._held.pop(key, None)
            if held is not None:
                self._size -= _cost((key, held))


def _cost(entry: tuple[Key, bytes]) -> int:
    key, held = entry
    return _ENTRY_BYTES + len(key.thing) + len(key.name) + len(held)
