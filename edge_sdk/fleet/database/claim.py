"""One server per database: whoever serves it holds a lock that ends with the process."""

from __future__ import annotations

import fcntl
import os
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from edge_sdk.errors import FleetError

AT_START_S = 3
"""For how long a server that was killed may still hold the lock."""
AGAIN_S = 30
"""For how long PostgreSQL may take a connection that broke off for one that holds it."""
_NUMBER = 0x656467652D73646B  # of an advisory lock: any that others are not likely to use
_LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's error code
# PostgreSQL notices within seconds, and not hours, that the holder's machine has vanished.
_WATCHFUL = (
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 3; SET tcp_keepalives_count = 3"
)


class Claim(Protocol):
    """A lock on a database."""

    def hold(self, patience: int) -> None:
        """Takes the lock, again where it was lost.

        Args:
            patience: Seconds to wait for it.

        Raises:
            FleetError: Another process has it.
            SQLAlchemyError: The database is not reached.
        """

    def release(self) -> None:
        """Gives it up."""


def claim(engine: sa.Engine) -> Claim:
    """The lock of a database, not taken yet."""
    return _SqliteClaim(engine) if engine.dialect.name == "sqlite" else _PostgresqlClaim(engine)


class _SqliteClaim:
    """A lock on a file beside the database."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._file: int | None = None

    def hold(self, patience: int) -> None:
        if self._file is not None:
            return
        path = f"{self._engine.url.database}.lock"
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        except OSError as error:
            raise FleetError(f"cannot be written: {error.strerror}", where=path) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise _taken(self._engine) from None
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class _PostgresqlClaim:
    """An advisory lock, held by a connection of its own."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._connection: sa.Connection | None = None

    def hold(self, patience: int) -> None:
        if self._connection is not None:
            try:
                self._connection.execute(sa.select(1))
                return
            except SQLAlchemyError:
                self.release()
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        wait = f"SET lock_timeout = '{patience}s'"
        try:
            for statement in (_WATCHFUL, wait, f"SELECT pg_advisory_lock({_NUMBER})"):
                connection.exec_driver_sql(statement)
        except SQLAlchemyError as error:
            connection.invalidate()
            connection.close()
            if getattr(getattr(error, "orig", None), "sqlstate", None) == _LOCK_NOT_AVAILABLE:
                raise _taken(self._engine) from None
            raise
        self._connection = connection

    def release(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()  # the lock goes with it
            self._connection.close()
            self._connection = None


def _taken(engine: sa.Engine) -> FleetError:
    return FleetError(
        "another server serves this database",
        where=engine.url.set(drivername=engine.dialect.name).render_as_string(),
        remedy="stop it, or give another --data or --db",
    )
