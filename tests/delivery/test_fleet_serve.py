"""What ``edge-sdk fleet serve`` hands out of its own store, with either of its brokers."""

from __future__ import annotations

import sys
import threading

import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.transport.address import BrokerAddress
from edge_sdk.transport.fetch import fetch
from edge_sdk.transport.mqtt_blobs import MqttSource
from edge_sdk.transport.paho_link import PahoLink
from edge_sdk.transport.registry import RegistrySource
from edge_sdk.transport.registry_http import RegistryClient
from edge_sdk.transport.source import Reference
from tests.brokers import free_port
from tests.delivery.large import make_large
from tests.fleet.server import COMMAND, PATIENCE, servers

pytest.importorskip("sqlalchemy", reason="a device has no fleet's server")
WITHOUT_MOSQUITTO = (
    sys.executable,
    "-c",
    "import shutil, sys; shutil.which = lambda *_, **__: None;"
    "from edge_sdk.cli.main import main; sys.exit(main())",
    *COMMAND[3:],
)


@pytest.fixture(params=["Mosquitto", "amqtt"])
def server(request, tmp_path):
    """A server with a bundle of 3 MB in its store."""
    options = {} if request.param == "Mosquitto" else {"command": WITHOUT_MOSQUITTO}
    with servers() as start:
        server = start(tmp_path / "data", "--broker-port", str(free_port()), **options)
        bundle = open_bundle(make_large(tmp_path / "large", 6, 500_000))
        Store(server.serving["store"]).install(bundle)
        yield server


def test_devices_fetch_by_both_ways(server, tmp_path):
    reference = Reference.parse(f"{server.serving['http']}/digits:1.0.0")
    link = PahoLink(BrokerAddress.parse(server.serving["broker"]), "cam-1")
    up = threading.Event()
    link.open(lambda connected: up.set() if connected else None)
    sources = {
        "http": RegistrySource(RegistryClient(lambda _: None)),
        "mqtt": MqttSource(link, "edge/things", "cam-1"),
    }
    assert up.wait(PATIENCE)
    for name, source in sources.items():
        fetched = fetch(source, reference, tmp_path / name)
        store = Store(tmp_path / name)
        store.enter(fetched.descriptor, fetched.bundle.digest)
        assert list(store.verify()) == []
        assert fetched.fetched_bytes > 3_000_000
        source.close()
    link.close()
