"""Connections to the database, and the two lanes on which work reaches them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from edge_sdk.errors import ConfigError, FleetError
from edge_sdk.fleet.database.claim import AGAIN_S, AT_START_S, claim

T = TypeVar("T")

_MIGRATIONS = Path(__file__).parent / "migrations"
_READERS = 2
_CLAIM_EVERY_S = 5.0
_BUSY_S = 10
# A server that has vanished is given up in seconds, not in the hours of the system's defaults.
_POSTGRESQL = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
}


class Database:
    """A database that is up to date with this server, and its alone.

    All writing goes through one thread: SQLite takes one writer at a time, and whoever waits
    in a queue of ours does not time out.

    Args:
        url: ``sqlite:///FILE`` or ``postgresql://[USER[:PASSWORD]@]HOST[:PORT]/NAME``.

    Raises:
        ConfigError: The URL is something else, or a newer server has written this database.
        FleetError: It cannot be opened or brought up to date, or another server serves it.

    Attributes:
        engine: For synchronous use; every transaction on it is durable once committed.
        shown: Its URL, without the password.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self.shown = self.engine.url.set(drivername=self.engine.dialect.name).render_as_string()
        self._writer = ThreadPoolExecutor(1, "database-writer")
        self._readers = ThreadPoolExecutor(_READERS, "database-reader")
        self._claim = claim(self.engine)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    async def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Runs ``work`` in a transaction that is committed when this returns.

        Raises:
            SQLAlchemyError: Nothing of it was stored.
        """

        def transaction() -> T:
            with self.engine.begin() as connection:
                return work(connection)

        return await self.on_writer(transaction)

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Runs ``work``, which only reads, beside what is being written.

        Raises:
            SQLAlchemyError: The database does not answer.
        """

        def reading() -> T:
            with self.engine.connect() as connection:
                return work(connection)

        return await self._on_reader(reading)

    async def on_writer(self, work: Callable[[], T]) -> T:
        """Runs ``work`` on the writer's thread; it makes its own transactions."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    async def answers(self) -> bool:
        """Whether it can be read now."""
        try:
            await self.read(lambda connection: connection.execute(sa.select(1)))
        except SQLAlchemyError:
            return False
        return True

    async def keep(self) -> None:
        """Sees to it, until it is cancelled, that no other server serves this database.

        Raises:
            FleetError: One does: it began while the database could not be reached from here.
        """
        while True:
            await asyncio.sleep(_CLAIM_EVERY_S)
            with suppress(SQLAlchemyError):  # it is away, as whoever needs it will say
                await self._on_reader(lambda: self._claim.hold(AGAIN_S))

    def close(self) -> None:
        """Waits for what has begun, then closes all connections."""
        self._writer.shutdown()
        self._readers.shutdown()
        self._claim.release()
        self.engine.dispose()

    async def _on_reader(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    def _open(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        try:
            self._claim.hold(AT_START_S)
            with self.engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except CommandError as error:
            raise ConfigError(
                f"the database was written by another version of edge-sdk ({error})",
                where=self.shown,
                remedy="run the version that wrote it, or a newer one",
            ) from error
        except SQLAlchemyError as error:
            raise FleetError(
                f"the database cannot be opened: {cause(error)}",
                where=self.shown,
                remedy="check that it runs, and who may write to it",
            ) from error


def cause(error: SQLAlchemyError) -> str:
    """What the database said, without the statement and SQLAlchemy's advice."""
    return str(getattr(error, "orig", None) or error)


def _engine(url: str) -> sa.Engine:
    remedy = "write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        # What is before an @ may be a password.
        where = url.rpartition("@")[2]
        raise ConfigError("no URL of a database", where=where, remedy=remedy) from error
    shown = parsed.render_as_string()
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
        return sa.create_engine(
            parsed,
            pool_pre_ping=True,
            pool_size=_READERS + 2,  # the writer, and the lock
            connect_args=_POSTGRESQL,
            hide_parameters=True,
        )
    if parsed.drivername != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise ConfigError("no database that is kept", where=shown, remedy=remedy)
    try:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{error.strerror}", where=shown, remedy="choose another folder"
        ) from error
    engine = sa.create_engine(parsed, connect_args={"timeout": _BUSY_S}, hide_parameters=True)
    sa.event.listen(engine, "connect", _configure_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: sqlite3.Connection, _: object) -> None:
    # FULL: a commit has reached the disk when it returns, also in WAL mode. The driver's own
    # notion of transactions is switched off, as it leaves DDL and reads outside of them.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")
