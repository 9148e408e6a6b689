"""A real PostgreSQL server of this test run, and databases for single tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.brokers import free_port
from tests.programs import require

# Debian keeps the server's programs of each version in a folder of its own.
FOLDERS = os.pathsep.join(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)))
# It refuses to run as root; the package brings this user.
USER = "postgres" if os.getuid() == 0 else None


def _run(tool: str, *arguments: str) -> None:
    path = require(tool, "postgresql", FOLDERS)
    subprocess.run(
        [path, *arguments], check=True, user=USER, cwd="/", capture_output=True, timeout=60
    )


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A server; its URL ends where the name of a database goes."""
    require("initdb", "postgresql", FOLDERS)
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))  # pytest's own are closed to USER
    if USER:
        shutil.chown(folder, USER)
    data, port = str(folder / "data"), free_port()
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off"
    try:
        _run("initdb", "-D", data, "-U", "edge", "-A", "trust", "--no-sync")
        _run("pg_ctl", "-D", data, "-l", str(folder / "log"), "-o", options, "-w", "start")
        yield f"postgresql://edge@127.0.0.1:{port}/"
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            _run("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'fleet.db'}"
    return postgresql_database(request.getfixturevalue("postgresql"))


def postgresql_database(server: str) -> str:
    """URL of an empty database of a server."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(f"{server}postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server + name
