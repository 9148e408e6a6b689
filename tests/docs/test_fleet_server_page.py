"""What docs/fleet-server.md shows is so."""

from __future__ import annotations

import json
import subprocess

import msgspec

from edge_sdk.fleet.config import FleetConfig
from edge_sdk.toml_files import loads
from tests.brokers import free_port
from tests.docs.runner import NUMBER, ROOT, Block, blocks
from tests.fleet.server import COMMAND, servers
from tests.programs import require
from tests.transport.waiting import until

PAGE = "docs/fleet-server.md"


def only(kind: str) -> Block:
    (block,) = (block for block in blocks(PAGE) if block.kind == kind)
    return block


def test_the_first_lines_are_those_of_the_page(tmp_path):
    require("mosquitto", "mosquitto")
    command, *shown = only("console").text.splitlines()
    assert command == "$ edge-sdk fleet serve"
    ports = ("--http", "127.0.0.1:0", "--broker-port", str(free_port()))
    with subprocess.Popen(
        [*COMMAND, *ports], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        printed = [process.stdout.readline().rstrip("\n") for _ in shown]
        process.terminate()
    assert process.returncode == 0
    assert [NUMBER.sub("0", line) for line in printed] == [NUMBER.sub("0", line) for line in shown]
    assert (tmp_path / "fleet-data" / "fleet.db").exists()


def test_its_configuration_is_one():
    config = msgspec.convert(loads(only("toml").text), FleetConfig)
    assert config.broker.url and config.http.token and config.listen == ("0.0.0.0", 8080)


def test_its_broker_and_its_health_are_so(start_mosquitto, tmp_path):
    after = (ROOT / PAGE).read_text().partition("For Mosquitto")[2]
    lines = after.split("```")[1].splitlines()
    broker = start_mosquitto(lines=tuple(lines))
    with servers() as start:
        server = start(tmp_path / "fleet", "--broker", broker.url)
        until(lambda: server.health() == (200, json.loads(only("json").text)))
