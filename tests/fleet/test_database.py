"""Databases are brought up to date, take what is committed, and say what is wrong."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from edge_sdk.errors import ConfigError, FleetError
from edge_sdk.fleet import audit
from edge_sdk.fleet.database import claim, engine
from edge_sdk.fleet.database.engine import Database
from edge_sdk.fleet.rollout.events import Event
from tests.databases import postgresql_database

SHADOW = sa.text("INSERT INTO shadows VALUES (:thing, '', 1, :document, NULL)")
BREAK_OFF = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""
CLAIM = f"SELECT pg_advisory_lock({claim._NUMBER})"
THINGS = sa.text("SELECT thing FROM shadows ORDER BY thing")


def things(database: Database) -> list[str]:
    return asyncio.run(database.read(lambda connection: list(connection.execute(THINGS).scalars())))


def test_what_was_written_is_there_when_it_is_opened_again(database_url):
    with closing(Database(database_url)) as database:
        row = {"thing": "gate-1", "document": b"{}"}
        asyncio.run(database.write(lambda connection: connection.execute(SHADOW, row)))
    with closing(Database(database_url)) as database:
        assert things(database) == ["gate-1"]


def test_a_second_server_is_refused_until_the_first_has_ended(database_url):
    refused = pytest.raises(FleetError, match="another server serves this database")
    with closing(Database(database_url)), refused:
        Database(database_url)
    with closing(Database(database_url)):
        pass


def test_a_database_that_was_away_is_claimed_again_or_given_up(postgresql, monkeypatch):
    monkeypatch.setattr(engine, "_CLAIM_EVERY_S", 0.01)
    monkeypatch.setattr(engine, "AGAIN_S", 1)
    url = postgresql_database(postgresql)

    with closing(Database(url)) as database, psycopg.connect(url, autocommit=True) as other:
        assert other.execute(BREAK_OFF).fetchall()
        with pytest.raises(asyncio.TimeoutError):
            asyncio.run(asyncio.wait_for(database.keep(), 1))
        with pytest.raises(FleetError, match="another server serves this database"):
            Database(url)
        assert other.execute(BREAK_OFF).fetchall()
        other.execute(CLAIM)
        with pytest.raises(FleetError, match="another server serves this database"):
            asyncio.run(asyncio.wait_for(database.keep(), 10))


def test_a_write_that_raises_leaves_nothing(database_url):
    row = {"thing": "gate-1", "document": b"{}"}

    def work(connection: sa.Connection) -> None:
        connection.execute(SHADOW, row)
        connection.execute(SHADOW, row)  # the same key again

    with closing(Database(database_url)) as database:
        with pytest.raises(sa.exc.IntegrityError):
            asyncio.run(database.write(work))
        assert things(database) == []


def test_a_read_does_not_wait_for_a_write(database_url):
    reading = threading.Event()

    async def both(database: Database) -> None:
        writing = asyncio.ensure_future(database.write(lambda _: reading.wait(10)))
        assert await database.read(lambda connection: connection.execute(THINGS).all()) == []
        reading.set()
        assert await writing, "the write was over before the read"

    with closing(Database(database_url)) as database:
        asyncio.run(both(database))


def test_a_database_of_a_newer_server_is_refused(database_url):
    with closing(Database(database_url)) as database:
        newer = sa.text("UPDATE alembic_version SET version_num = '9999'")
        asyncio.run(database.write(lambda connection: connection.execute(newer)))
    with pytest.raises(ConfigError, match=r"another version of edge-sdk .*9999"):
        Database(database_url)


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path):
    url = f"sqlite:///{tmp_path / 'fleet.db'}"
    with closing(sa.create_engine(url).connect()) as connection:
        connection.execute(sa.text("CREATE TABLE shadows (mine TEXT)"))
        connection.commit()
        with pytest.raises(FleetError, match="already exists"):
            Database(url)
        assert sa.inspect(connection).get_table_names() == ["shadows"]


def test_sqlite_commits_reach_the_disk(tmp_path):
    with closing(Database(f"sqlite:///{tmp_path / 'new' / 'fleet.db'}")) as database:

        def pragmas(connection: sa.Connection) -> tuple[object, ...]:
            names = ("journal_mode", "synchronous")
            return tuple(connection.scalar(sa.text(f"PRAGMA {name}")) for name in names)

        assert asyncio.run(database.write(pragmas)) == ("wal", 2)
        assert asyncio.run(database.read(pragmas)) == ("wal", 2)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "fleet.db",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://root:hidden@localhost/fleet",
        "postgresql:/edge:hidden@localhost/fleet",
    ],
)
def test_a_url_of_something_else_is_explained(url):
    with pytest.raises(ConfigError) as caught:
        Database(url)
    assert "sqlite:///FILE" in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_database_that_is_not_reached_is_named_without_its_password():
    with pytest.raises(FleetError) as caught:
        Database("postgresql://edge:hidden@127.0.0.1:1/fleet")
    assert caught.value.where == "postgresql://edge:***@127.0.0.1:1/fleet"
    assert "hidden" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        Database(f"sqlite:///{tmp_path / 'file' / 'fleet.db'}")
    assert str(tmp_path) in str(caught.value)


def test_the_audit_forgets_what_is_old_and_nothing_else(database_url):
    with closing(Database(database_url)) as database:
        for moment in (10.0, 20.0, 30.0):
            event = Event(kind="device.labelled", text=str(moment), thing="cam-1", by="me")
            asyncio.run(database.write(partial(audit.record, events=(event,), now=moment)))
        asyncio.run(database.write(partial(audit.forget, before=20.0)))
        left = asyncio.run(database.read(audit.entries))
    assert [entry.at for entry in left] == [30.0, 20.0]
