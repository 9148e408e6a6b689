"""``edge-sdk fleet serve`` as a process: outages, SIGKILL, a full disk, and its own broker."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.brokers import free_port
from tests.fleet.server import COMMAND, PATIENCE, Server, servers
from tests.fleet.speaking import run, speaker, until

WITHOUT_MOSQUITTO = (
    sys.executable,
    "-c",
    "import shutil, sys; shutil.which = lambda *_, **__: None;"
    "from edge_sdk.cli.main import main; sys.exit(main())",
    *COMMAND[3:],
)
HEALTHY = {"healthy": True, "broker": True, "database": True}


@pytest.fixture
def start():
    with servers() as start:
        yield start


def reported(**values):
    return {"state": {"reported": values}}


def test_without_options_it_is_a_working_cloud_on_loopback(start, tmp_path):
    server = start(tmp_path / "data", "--broker-port", str(free_port()))

    async def test():
        async with speaker(server.serving["broker"]) as client:
            for root in server.serving["roots"]:
                assert (await client.ask("a", "update", reported(x=1), root=root))[0] == "accepted"
            await until(lambda: server.health() == (200, HEALTHY))

    run(test)
    assert server.serving["broker_kind"] == "Mosquitto"
    assert server.serving["broker"].startswith("mqtt://127.0.0.1:")
    assert server.stop() == 0
    assert not listening(server.serving["broker"])


def listening(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) == 0


def test_without_mosquitto_it_brings_a_broker_of_its_own(start, tmp_path):
    options = ("--broker-port", str(free_port()))
    server = start(tmp_path / "data", *options, command=WITHOUT_MOSQUITTO)
    assert server.serving["broker_kind"] == "amqtt, embedded"
    assert server.serving["roots"] == ["edge/things"]

    async def test():
        async with speaker(server.serving["broker"], ["edge/things"]) as client:
            assert (await client.ask("a", "update", reported(x=1)))[0] == "accepted"
            assert (await client.ask("a", "get"))[1]["state"] == {"reported": {"x": 1}}

    run(test)
    assert server.stop() == 0
    assert not listening(server.serving["broker"])


def test_what_was_accepted_outlives_sigkill_and_sigterm(start, mosquitto, tmp_path):
    """Twenty things report without a pause while the server ends and comes back."""
    data, options = tmp_path / "data", ("--broker", mosquitto.url)
    accepted = {f"t-{i}": 0 for i in range(20)}
    enough = asyncio.Event()

    async def report(client, thing):
        while not enough.is_set():
            token = await client.send(thing, "update", reported(number=accepted[thing] + 1))
            assert (await client.answer(token))[0] == "accepted"  # by whichever server
            accepted[thing] += 1

    async def check(client):
        before = dict(accepted)
        for thing, number in before.items():
            _, content = await client.ask(thing, "get", root="$aws/things")
            assert content["state"]["reported"]["number"] >= number

    async def test():
        server = start(data, *options)
        async with speaker(mosquitto.url) as client:
            reports = [asyncio.ensure_future(report(client, thing)) for thing in accepted]
            for end in (Server.kill, Server.stop, Server.kill):
                goal = sum(accepted.values()) + 100
                await until(lambda: sum(accepted.values()) > goal)  # noqa: B023
                assert end(server) in (0, -signal.SIGKILL)
                assert not any("Traceback" in line for line in server.log)
                server = start(data, *options)
                await check(client)
            enough.set()
            await asyncio.gather(*reports)
            await check(client)
        assert server.stop() == 0

    run(test)
    assert min(accepted.values()) > 3


def test_its_own_broker_dies_with_it_and_comes_back_on_the_same_port(start, tmp_path):
    data, port = tmp_path / "data", str(free_port())
    first = start(data, "--broker-port", port)
    url = first.serving["broker"]

    async def test():
        first.kill()
        await until(lambda: not listening(url))
        second = start(data, "--broker-port", port)
        assert second.serving["broker"] == url
        # A broker that dies alone is started again.
        (child,) = children(second.process.pid)
        os.kill(child, signal.SIGKILL)
        await until(lambda: second.health()[0] == 503)
        await until(lambda: second.health() == (200, HEALTHY))
        async with speaker(url) as client:
            assert (await client.ask("a", "update", reported(x=1)))[0] == "accepted"
        assert any("mosquitto ended with exit code -9" in line for line in second.log)

    run(test)


def children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in listed.split()]


def test_it_starts_while_the_broker_is_away_and_finds_it_later(start, mosquitto, tmp_path):
    mosquitto.stop()
    server = start(tmp_path / "data", "--broker", mosquitto.url)

    async def test():
        assert server.health() == (503, {**HEALTHY, "healthy": False, "broker": False})
        mosquitto.start()
        await until(lambda: server.health() == (200, HEALTHY))

    run(test)
    assert server.stop() == 0


def test_a_full_disk_refuses_with_500_and_loses_nothing(start, mosquitto, tmp_path):
    server = start(tmp_path / "data", "--broker", mosquitto.url)
    big = "x" * 6000

    async def test():
        async with speaker(mosquitto.url) as client:
            for thing in ("a", "b"):
                assert (await client.ask(thing, "update", reported(x=1)))[0] == "accepted"
            server.limit_files(4096)
            refused = [await client.ask(thing, "update", reported(y=big)) for thing in ("a", "new")]
            assert [(suffix, content["code"]) for suffix, content in refused] == [
                ("rejected", 500),
                ("rejected", 500),
            ]
            # What was accepted is still there, and reads are answered.
            for thing in ("a", "b"):
                _, content = await client.ask(thing, "get")
                assert (content["version"], content["state"]) == (1, {"reported": {"x": 1}})
            server.limit_files(-1)
            suffix, content = await client.ask("a", "update", reported(y=big))
            assert (suffix, content["version"]) == ("accepted", 2)
            assert (await client.ask("new", "get"))[0] == "rejected"

    run(test)
    assert any("could not be stored" in line for line in server.log)  # the disk did refuse
    assert server.stop() == 0


def test_a_database_that_was_away_is_used_again(start, mosquitto, postgresql, tmp_path):
    """PostgreSQL ends all its connections, as when it is restarted."""
    name = f"fleet_{tmp_path.name}".lower().replace("-", "_")
    with psycopg.connect(f"{postgresql}postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        server = start(tmp_path / "data", "--broker", mosquitto.url, "--db", postgresql + name)

        async def test():
            async with speaker(mosquitto.url) as client:
                assert (await client.ask("a", "update", reported(x=1)))[0] == "accepted"
                ended = connection.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE datname = %s",
                    (name,),
                ).fetchone()
                assert ended and ended[0]
                suffix, content = await client.ask("a", "update", reported(x=2))
                assert (suffix, content["version"]) == ("accepted", 2)

        run(test)
        assert server.stop() == 0


def test_a_second_server_on_the_same_folder_is_refused(start, mosquitto, tmp_path):
    start(tmp_path / "data", "--broker", mosquitto.url)
    code, message = refused("--data", str(tmp_path / "data"), "--http", "127.0.0.1:0")
    assert code == 1
    assert "fleet.db: another server serves this database" in message


def test_a_port_that_is_taken_is_named(mosquitto, tmp_path):
    code, message = refused("--data", str(tmp_path), "--http", f"127.0.0.1:{mosquitto.port}")
    assert code == 2
    assert f"127.0.0.1:{mosquitto.port}: cannot listen there" in message


def test_a_taken_port_for_the_broker_is_named(mosquitto, tmp_path):
    code, message = refused(
        "--data", str(tmp_path), "--http", "127.0.0.1:0", "--broker-port", str(mosquitto.port)
    )
    assert code == 1
    assert f"127.0.0.1:{mosquitto.port}: another program listens there" in message


def test_its_own_broker_stays_where_agents_look_for_it(start, tmp_path):
    data, port = tmp_path / "data", free_port()
    kept = data / "broker" / "mosquitto.db"
    start(data, "--broker-port", str(port)).stop()
    assert kept.exists()
    second = start(data)
    assert not kept.exists()  # else a broker that is killed would deliver it once more
    second.kill()
    # At once, while the broker of the one that was killed may still be there.
    third = start(data)
    assert third.serving["broker"] == second.serving["broker"] == f"mqtt://127.0.0.1:{port}"
    third.stop()
    with socket.create_server(("127.0.0.1", port)):
        code, message = refused("--data", str(data), "--http", "127.0.0.1:0")
    assert code == 1
    assert f"127.0.0.1:{port}: another program listens there, where agents expect" in message


def test_a_wrong_file_is_explained(tmp_path):
    (tmp_path / "fleet.toml").write_text("[http]\nlisten = 8080\n[broker]\nprot = 1883\n")
    code, message = refused("--config", str(tmp_path / "fleet.toml"))
    assert code == 2
    assert "http.listen" in message
    assert "did you mean 'port'" in message


def refused(*options: str) -> tuple[int, str]:
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr
