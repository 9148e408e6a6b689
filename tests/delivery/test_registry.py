from __future__ import annotations

from edge_sdk.bundle.store import Store
from edge_sdk.transport.fetch import fetch
from edge_sdk.transport.registry import RegistrySource


def test_a_pushed_bundle_is_fetched_and_entered(pushed, bundle, tmp_path):
    source = RegistrySource(lambda _: None)
    fetched = fetch(source, pushed, tmp_path / "store")
    store = Store(tmp_path / "store")
    entry = store.enter(fetched.descriptor, fetched.bundle.digest)
    assert entry.bundle_digest == bundle.descriptor.digest
    assert list(store.verify()) == []
    source.close()
