"""The tutorial of a fleet and the page on running one, as somebody would follow them."""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.fleet.database.engine import Database
from tests.agent.releases import make
from tests.brokers import free_port
from tests.cli.conftest import COMMAND
from tests.databases import postgresql, postgresql_database
from tests.delivery.conftest import registry, start_registry
from tests.docs.runner import FILE, ROOT, Command, blocks, commands, run_command
from tests.transport.waiting import until

__all__ = ["postgresql", "registry", "start_registry"]
PATIENCE = 60.0
SHADOW = sa.text("INSERT INTO shadows VALUES (:thing, '', 1, '{}', NULL)")
THINGS = sa.text("SELECT thing FROM shadows")
# They show what comes about in a moment.
AWAITED = ("grep ", "curl ", "edge-sdk fleet devices", "edge-sdk fleet rollouts")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty current folder; what was begun in it and goes on is ended."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    yield tmp_path
    for process in processes_in(tmp_path):
        os.kill(process, signal.SIGKILL)
    until(lambda: not list(processes_in(tmp_path)))


def processes_in(folder: Path) -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if entry.name != str(os.getpid()) and (entry / "cwd").samefile(folder):
                yield int(entry.name)


def follow(page: str, change: Callable[[str], str]) -> None:
    """Does what a page says, with other names and ports."""
    text = change((ROOT / page).read_text(encoding="utf-8"))
    copy = Path("page.md").absolute()
    copy.write_text(text, encoding="utf-8")
    for block in blocks(str(copy)):
        if found := FILE.match(block.text):
            Path(found[1]).write_text(block.text, encoding="utf-8")
        elif block.kind == "console":
            for command in commands(block):
                patiently(command)


def patiently(command: Command) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return run_command(command)
        except AssertionError:
            if not command.line.startswith(AWAITED) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@pytest.mark.needs("mosquitto", "mosquitto")
@pytest.mark.needs("curl", "curl")
def test_two_machines_and_more(registry, here, monkeypatch):
    shutil.copytree(ROOT / "examples/digits", here / "digits")
    ports = {port: str(free_port()) for port in ("1883", "8080", "8090", "8091")}

    def change(text: str) -> str:
        text = re.sub("|".join(ports), lambda port: ports[port[0]], text)
        text = text.replace("server.example", "127.0.0.1")
        return text.replace("registry.example", registry.host)

    monkeypatch.setenv("EDGE_SDK_SERVER", f"http://127.0.0.1:{ports['8080']}")
    monkeypatch.setenv("EDGE_SDK_TOKEN", "a long random text")
    follow("docs/tutorial-fleet.md", change)


@pytest.mark.needs("mosquitto", "mosquitto")
@pytest.mark.needs("mosquitto_pub", "mosquitto-clients")
@pytest.mark.needs("curl", "curl")
def test_certificates_backup_and_restore(here, monkeypatch):
    ports = {port: str(free_port()) for port in ("8883", "8080", "8090")}

    def change(text: str) -> str:
        text = re.sub("|".join(ports), lambda port: ports[port[0]], text)
        # Root would become a user who may not read the keys.
        text = text.replace("# mosquitto.conf", f"# mosquitto.conf\nuser {getpass.getuser()}")
        return text.replace("server.example", "localhost")

    monkeypatch.setenv("EDGE_SDK_SERVER", f"http://127.0.0.1:{ports['8080']}")
    monkeypatch.setenv("EDGE_SDK_TOKEN", "a long random text")
    (here / "fleet-data/store").mkdir(parents=True)
    Store(here / "fleet-data/store").install(open_bundle(make(here / "lookup", "1.0.0").path))
    follow("docs/operations.md", change)

    # The restored server and a device that was there all along understand each other.
    line = "edge-sdk fleet deploy lookup:1.0.0 --soak 0s --watch"
    run_command(Command(line, "rollout 1: lookup 1.0.0 completed...\n...", "after the page"))
    subprocess.run(["sh", "issue.sh", "gw-3"], check=True, capture_output=True)
    for thing, certificate in (("gw-2", "gw-1"), ("gw-3", "gw-3")):
        show_presence(thing, certificate, ports["8883"])
    until(lambda: "gw-3" in devices(), PATIENCE)
    assert "gw-2" not in devices(), "a certificate is for one thing"


def test_postgresql_comes_back_as_the_page_says(postgresql, here):
    url = postgresql_database(postgresql)
    dump, restore = (
        line.replace(" edge", f" {url}")
        for block in blocks("docs/operations.md")
        for line in block.text.splitlines()
        if line.startswith("pg_")
    )
    with closing(Database(url)) as database:
        asyncio.run(database.write(lambda on: on.execute(SHADOW, {"thing": "kept"})))
        subprocess.run(shlex.split(dump), check=True, timeout=60)
        asyncio.run(database.write(lambda on: on.execute(SHADOW, {"thing": "later"})))
    subprocess.run(shlex.split(restore), check=True, timeout=60)
    with closing(Database(url)) as database:
        found = asyncio.run(database.read(lambda on: on.execute(THINGS).scalars().all()))
    assert found == ["kept"]


def show_presence(thing: str, certificate: str, port: str) -> None:
    tls = ["--cafile", "ca.crt", "--cert", f"{certificate}.crt", "--key", f"{certificate}.key"]
    what = ["-t", f"edge/things/{thing}/presence", "-m", '{"online": true, "session": "1"}']
    command = ["mosquitto_pub", "-h", "localhost", "-p", port, "-q", "1", *tls, *what]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def devices() -> str:
    command = [*COMMAND, "fleet", "devices"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
