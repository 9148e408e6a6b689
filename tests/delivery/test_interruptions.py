"""Connections that are cut and processes that are killed, against a real registry."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.transport.fetch import fetch
from edge_sdk.transport.push import push
from edge_sdk.transport.registry import RegistrySource
from edge_sdk.transport.registry_http import RegistryClient
from edge_sdk.transport.source import Reference
from edge_sdk.transport.transfer import Retry
from tests.bundle.killing import killed
from tests.delivery.large import make_large
from tests.delivery.sources import REFERENCE, LayoutSource
from tests.delivery.wire import wire_to

SOON = Retry(attempts=6, shortest=0.01, longest=0.05)
LAYERS, SIZE = 8, 1_000_000
PULL = (sys.executable, "-m", "edge_sdk.cli.main", "pull")


@pytest.fixture
def large(tmp_path, registry, client):
    """A bundle of 8 MB in the registry, its directory, and a wire to it."""
    bundle = open_bundle(make_large(tmp_path / "large", LAYERS, SIZE))
    push(client, bundle, Reference.parse(f"{registry.host}/large:1"))
    with wire_to(registry.port) as wire:
        yield bundle, wire


def total(bundle):
    (variant,) = bundle.variants
    return variant.size + bundle.descriptor.size


def test_cut_connections_cost_no_byte_twice(large, tmp_path):
    bundle, wire = large
    wire.cut_after, wire.cuts_left = 300_000, 12
    source = RegistrySource(RegistryClient(lambda _: None, connections=4))
    reference = Reference.parse(f"{wire.host}/large:1")
    fetched = fetch(source, reference, tmp_path / "store", retry=SOON)
    source.close()
    assert wire.cuts == 12
    store = Store(tmp_path / "store")
    store.enter(fetched.descriptor, fetched.bundle.digest)
    assert list(store.verify()) == []
    # Beside the bundle: headers, and what was on its way in each connection that was cut.
    assert fetched.fetched_bytes == total(bundle)
    assert wire.down < 1.02 * total(bundle) + 12 * 128 * 1024


def test_a_push_over_cut_connections_ends_well(large, registry, tmp_path, monkeypatch):
    _, wire = large
    monkeypatch.setattr("edge_sdk.transport.push.CHUNKED_FROM", 2_000_000)
    monkeypatch.setattr("edge_sdk.transport.push.CHUNK", 1_000_000)
    bundle = open_bundle(make_large(tmp_path / "other", 3, 5_000_000))
    wire.cut_after_up, wire.cuts_left = 2_500_000, 5
    client = RegistryClient(lambda _: None, connections=3)
    reference = Reference.parse(f"{wire.host}/other:1")
    pushed = push(client, bundle, reference, parallel=3, retry=SOON)
    client.close()
    assert wire.cuts == 5
    assert pushed.digest == bundle.descriptor.digest
    for blob in bundle.variants[0].all_blobs:
        assert registry.blob(blob.digest).stat().st_size == blob.size


@pytest.mark.parametrize("into", ["directory", "store"])
def test_a_pull_killed_again_and_again_goes_on_where_it_was(large, tmp_path, into):
    bundle, wire = large
    target = ["--store", tmp_path / "store"] if into == "store" else [tmp_path / "pulled"]
    words = [*PULL, f"{wire.host}/large:1", *target, "--json"]
    wire.rate = 2_000_000
    draw = random.Random(into)
    kills = 0
    for _ in range(4):
        process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE)
        before = wire.down
        deadline = time.monotonic() + 20
        while wire.down < before + 600_000 * draw.random() and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()
        process.stdout.close()
        kills += process.wait() == -signal.SIGKILL
        assert not (tmp_path / "pulled").exists()
        assert not (tmp_path / "store" / "index.json").exists()
    assert kills == 4
    wire.rate = None
    done = subprocess.run(
        [str(word) for word in words], check=True, stdout=subprocess.PIPE, timeout=60
    )
    found = json.loads(done.stdout)
    opened = open_bundle(found["path"])
    opened.verify()
    assert found["digest"] == bundle.descriptor.digest
    assert found["fetched_bytes"] < total(bundle), "the kills were before any byte"
    # Documents come again, and so does what a killed process had not written yet.
    assert wire.down < 1.02 * total(bundle) + 4 * 4 * 256 * 1024
    assert not list(tmp_path.glob(".pulled*"))


def test_a_fetch_may_be_killed_at_any_file_operation(bundle, tmp_path):
    """The child dies just before each call that opens, renames or locks; see killing.py."""
    number, kills = 1, 0
    while True:
        root = tmp_path / f"try-{number}"
        source = LayoutSource(bundle.path)

        def work(source=source, root=root):
            found = fetch(source, REFERENCE, root, parallel=1)
            Store(root).enter(found.descriptor, found.bundle.digest)

        if not killed(number, work, within=str(root)):
            break
        kills += 1
        work()
        assert list(Store(root).verify()) == []
        assert [entry.version for entry in Store(root).ls()] == ["1.0.0"]
        Store(root).gc()
        assert list(Store(root).blobs.temporary.iterdir()) == []
        assert list(Store(root).blobs.partial.iterdir()) == [Store(root).blobs.fetching]
        number += 1
    assert kills > 40
