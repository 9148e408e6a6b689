"""Every byte between a device and a real registry, HTTP's own included."""

from __future__ import annotations

import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.transport.fetch import fetch
from edge_sdk.transport.push import push
from edge_sdk.transport.registry import RegistrySource
from edge_sdk.transport.registry_http import RegistryClient
from edge_sdk.transport.source import Reference
from tests.delivery.large import make_large
from tests.delivery.wire import wire_to

LAYERS, LAYER = 24, 1_000_000


@pytest.fixture
def device(tmp_path, registry, client):
    """Fetches a version into the device's store; gives the bytes that came over the wire."""
    for version, tuned in (("1.0.0", ()), ("1.1.0", (7,))):
        path = make_large(tmp_path / version, LAYERS, LAYER, version=version, tuned=tuned)
        push(client, open_bundle(path), Reference.parse(f"{registry.host}/large:{version}"))
    store = Store(tmp_path / "store")
    with wire_to(registry.port) as wire:

        def update(version: str) -> int:
            before = wire.down
            source = RegistrySource(RegistryClient(lambda _: None))
            reference = Reference.parse(f"{wire.host}/large:{version}")
            fetched = fetch(source, reference, store.root, profile="x86-64")
            store.enter(fetched.descriptor, fetched.bundle.digest)
            source.close()
            assert list(store.verify()) == []
            assert fetched.fetched_bytes <= wire.down - before
            return wire.down - before

        yield update


def test_a_fine_tune_of_one_layer_costs_that_layer(device):
    full = device("1.0.0")
    assert LAYERS * LAYER < full < 1.01 * LAYERS * LAYER
    tuned = device("1.1.0")
    assert LAYER < tuned < 1.02 * LAYER
    assert device("1.1.0") < 2000, "nothing was new"
    assert device("1.0.0") < 2000, "going back costs nothing"
