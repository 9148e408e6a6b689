"""Shadows are stored in whole batches, and no change of another server is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from edge_sdk.fleet.database.engine import Database
from edge_sdk.fleet.shadow_store import ShadowStore
from edge_sdk.shadow.algebra import Outcome
from edge_sdk.shadow.requests import Request
from edge_sdk.shadow.topics import Address, Operation

NOW = 1_800_000_000


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    with closing(Database(database_url)) as database:
        yield database.engine


def request(thing: str, operation: Operation = "get", body: Any = None) -> Request:
    payload = b"" if body is None else msgspec.json.encode(body)
    return Request(Address("edge/things", thing), operation, payload)


def report(thing: str, **values: object) -> Request:
    return request(thing, "update", {"state": {"reported": values}})


def state(outcome: Outcome) -> Any:
    return msgspec.json.decode(outcome.replies[0].payload)["state"]


def suffixes(outcomes: list[Outcome]) -> list[str]:
    return [outcome.replies[0].suffix for outcome in outcomes]


def fail_once(engine: sa.Engine) -> list[str]:
    """Lets the next commit fail; the list says whether it did."""
    fired: list[str] = []

    @sa.event.listens_for(engine, "commit", once=True)
    def _(_: sa.Connection) -> None:
        fired.append("commit")
        raise sa.exc.OperationalError("COMMIT", None, Exception("disk is full"))

    return fired


def test_a_batch_sees_its_own_changes_in_order(engine):
    outcomes = ShadowStore(engine).apply(
        [request("a"), report("a", x=1), report("b", y=1), report("a", x=2), request("a")], NOW
    )
    assert suffixes(outcomes) == ["rejected", "accepted", "accepted", "accepted", "accepted"]
    assert state(outcomes[-1]) == {"reported": {"x": 2}}
    assert outcomes[-1].shadow and outcomes[-1].shadow.version == 2


def test_another_store_finds_what_was_committed(engine):
    ShadowStore(engine).apply([report("a", x=1)], NOW)
    assert state(ShadowStore(engine).apply([request("a")], NOW)[0]) == {"reported": {"x": 1}}


def test_a_batch_that_cannot_be_committed_leaves_nothing(engine):
    store = ShadowStore(engine)
    store.apply([report("a", x=1)], NOW)
    fired = fail_once(engine)
    with pytest.raises(sa.exc.OperationalError):
        store.apply([report("a", x=2), report("b", y=1)], NOW)
    assert fired
    a, b = store.apply([request("a"), request("b")], NOW)
    assert state(a) == {"reported": {"x": 1}}
    assert b.replies[0].suffix == "rejected"


def test_a_change_of_another_server_is_built_upon(engine):
    one, other = ShadowStore(engine), ShadowStore(engine)
    one.apply([report("a", x=1), report("b", x=1)], NOW)
    other.apply([report("a", y=2)], NOW)
    outcomes = one.apply([report("a", z=3), report("b", z=3)], NOW)  # holds an older a
    assert [outcome.shadow.version for outcome in outcomes if outcome.shadow] == [3, 2]
    assert state(ShadowStore(engine).apply([request("a")], NOW)[0]) == {
        "reported": {"x": 1, "y": 2, "z": 3}
    }


def test_a_shadow_that_another_server_has_just_made_is_built_upon(engine):
    one, other = ShadowStore(engine), ShadowStore(engine)
    one.apply([request("a")], NOW)  # knows now that there is none
    other.apply([report("a", y=2)], NOW)
    outcomes = one.apply([report("a", x=1), request("a")], NOW)
    assert state(outcomes[1]) == {"reported": {"x": 1, "y": 2}}


def test_a_store_that_holds_little_answers_the_same(engine):
    store = ShadowStore(engine, cache_bytes=2_000)
    for round_ in range(3):
        store.apply([report(f"thing-{i}", round=round_) for i in range(30)], NOW)
    answers = store.apply([request(f"thing-{i}") for i in range(30)], NOW)
    assert [state(answer) for answer in answers] == [{"reported": {"round": 2}}] * 30


def test_what_is_held_is_not_read_again(engine):
    store = ShadowStore(engine)
    store.apply([report("a", x=1), request("nothing")], NOW)
    statements: list[str] = []

    @sa.event.listens_for(engine, "before_cursor_execute")
    def _(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    store.apply([request("a"), request("nothing")], NOW)
    assert statements == []


def test_a_deleted_shadow_is_forgotten_after_two_days(engine):
    store = ShadowStore(engine)
    store.apply([report("a", x=1), report("b", x=1), request("a", "delete")], NOW)

    def rows() -> list[str]:
        with engine.connect() as connection:
            return list(connection.scalars(sa.text("SELECT thing FROM shadows ORDER BY thing")))

    store.forget(NOW + 48 * 3600)
    assert rows() == ["a", "b"]
    store.forget(NOW + 48 * 3600 + 1)
    assert rows() == ["b"]
    (again,) = store.apply([report("a", x=1)], NOW + 48 * 3600 + 2)
    assert again.shadow and again.shadow.version == 1
    assert rows() == ["a", "b"]


def test_names_that_cannot_be_stored_are_rejected_and_spoil_no_batch(engine):
    names = ["a\0b", "ä" * 200, "x" * 129, "\ud800"]
    outcomes = ShadowStore(engine).apply([*map(request, names), report("good", x=1)], NOW)
    assert suffixes(outcomes) == ["rejected"] * 4 + ["accepted"]


def test_more_things_than_fit_one_query_are_read(engine):
    things = [f"thing-{i}" for i in range(1_201)]
    ShadowStore(engine).apply([report(thing, name=thing) for thing in things], NOW)
    answers = ShadowStore(engine).apply([request(thing) for thing in things], NOW)
    assert [state(answer)["reported"]["name"] for answer in answers] == things
