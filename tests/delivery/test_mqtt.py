"""Blobs through a real broker: the server's bus on one side, a device's link on the other."""

from __future__ import annotations

import asyncio
import threading

import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.errors import TransferError
from edge_sdk.fleet.bus import FleetBus
from edge_sdk.fleet.mqtt_blobs import MqttBlobs
from edge_sdk.fleet.tasks import together
from edge_sdk.transport.address import BrokerAddress
from edge_sdk.transport.backoff import Backoff
from edge_sdk.transport.fetch import fetch
from edge_sdk.transport.mqtt_blobs import MqttSource
from edge_sdk.transport.paho_link import PahoLink
from edge_sdk.transport.source import Reference
from edge_sdk.transport.transfer import Progress, Retry
from tests.delivery.large import make_large

ROOT, THING = "edge/things", "cam-1"
REFERENCE = Reference.parse("registry.example/digits:1.0.0")
PATIENCE = 20.0


@pytest.fixture
def served(tmp_path):
    """A server's store with 4 MB in it."""
    store = Store(tmp_path / "served")
    store.install(open_bundle(make_large(tmp_path / "large", 8, 500_000)))
    return store


@pytest.fixture
def server(mosquitto, served):
    """The server, at work in a thread."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def work():
        bus = FleetBus(BrokerAddress.parse(mosquitto.url), "fleet")
        blobs = MqttBlobs(bus, served.root, ROOT)

        async def until_connected():
            while not bus.connected:
                await asyncio.sleep(0.005)
            ready.set()
            await asyncio.Event().wait()

        await together(bus.run(), blobs.run(), until_connected())

    task = loop.create_task(work())

    def run():
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(PATIENCE)
    yield
    loop.call_soon_threadsafe(task.cancel)
    thread.join()


@pytest.fixture
def link(mosquitto):
    """The device's connection; comes back soon after an outage."""
    backoff = Backoff(shortest=0.05, longest=0.1)
    link = PahoLink(BrokerAddress.parse(mosquitto.url), THING, backoff=backoff)
    yield link
    link.close()


@pytest.fixture
def source(link):
    source = MqttSource(link, ROOT, THING)
    up = threading.Event()
    link.open(lambda connected: up.set() if connected else None)
    assert up.wait(PATIENCE)
    return source


def entered(root, fetched, served):
    store = Store(root)
    store.enter(fetched.descriptor, fetched.bundle.digest)
    assert list(store.verify()) == []
    assert fetched.bundle.digest == served.ls()[0].bundle_digest


@pytest.mark.parametrize("parallel", [1, 4])
def test_a_bundle_comes_through_the_broker(server, source, served, tmp_path, parallel):
    fetched = fetch(source, REFERENCE, tmp_path / "store", parallel=parallel)
    entered(tmp_path / "store", fetched, served)
    assert fetched.fetched_bytes > 4_000_000


def test_graphs_come_compressed(server, source, served, tmp_path):
    graph = "".join(f"node {number} has inputs\n" for number in range(20_000)).encode()
    blob = served.blobs.put([graph])
    pieces = list(source.read(REFERENCE, blob))
    assert b"".join(piece.data for piece in pieces) == graph
    assert sum(piece.travelled for piece in pieces) < blob.size / 4


def test_an_outage_in_the_middle_costs_little(server, source, mosquitto, served, tmp_path):
    outages = 0

    def progress(now: Progress) -> None:
        nonlocal outages
        if outages < 2 and now.bytes_done > (outages + 1) * now.bytes_total / 3:
            outages += 1
            mosquitto.kill()
            mosquitto.start()

    retry = Retry(attempts=200, shortest=0.05, longest=0.1)
    fetched = fetch(source, REFERENCE, tmp_path / "store", progress=progress, retry=retry)
    assert outages == 2
    entered(tmp_path / "store", fetched, served)
    (variant,) = served.open("digits").variants
    assert fetched.fetched_bytes < 1.02 * variant.size


def test_what_the_server_does_not_have_is_said(server, source, tmp_path):
    with pytest.raises(TransferError, match="has no digits 9") as error:
        source.resolve(Reference.parse("registry.example/digits:9"))
    assert error.value.passing, "it may be installed soon"


def test_silence_is_an_error_that_names_what_may_be_wrong(source, monkeypatch):
    monkeypatch.setattr("edge_sdk.transport.mqtt_blobs.STALL", 0.05)
    with pytest.raises(TransferError, match="does not answer") as error:
        source.resolve(REFERENCE)
    assert error.value.passing
    assert "fleet serve" in str(error.value.remedy)


def test_without_a_connection_it_is_known_at_once(link, mosquitto):
    mosquitto.stop()
    source = MqttSource(link, ROOT, THING)
    with pytest.raises(TransferError, match="broker is not reached"):
        source.resolve(REFERENCE)
