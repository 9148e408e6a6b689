"""Compressed copies beside a bundle, in a registry that keeps bytes as they are."""

from __future__ import annotations

import lzma
import random

import pytest
import urllib3

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.record import Blob
from edge_sdk.bundle.store import Store
from edge_sdk.transport import shrunk
from edge_sdk.transport.fetch import fetch
from edge_sdk.transport.push import push
from edge_sdk.transport.registry import RegistrySource
from edge_sdk.transport.registry_http import RegistryClient
from edge_sdk.transport.source import Reference
from tests.delivery.large import make_large
from tests.delivery.test_intake import serve
from tests.delivery.wire import wire_to

__all__ = ["serve"]
LAYERS, LAYER, NODES = 24, 1_000_000, 20


@pytest.fixture
def versions(tmp_path):
    """A model with documents of a quarter of a layer, and a fine-tune of one layer."""
    return [
        open_bundle(
            make_large(tmp_path / version, LAYERS, LAYER, version=version, tuned=tuned, nodes=NODES)
        )
        for version, tuned in (("1.0.0", ()), ("1.1.0", (7,)))
    ]


@pytest.fixture
def update(tmp_path, registry, client, versions):
    """Fetches a version into the device's store; gives the bytes that came over the wire."""
    for bundle in versions:
        push(client, bundle, Reference.parse(f"{registry.host}/large:{bundle.version}"))
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
            came = wire.down - before
            assert came * 0.99 - 20_000 < fetched.fetched_bytes <= came
            return came

        yield update


def document_bytes(bundle):
    [variant] = bundle.variants
    weights = {blob for graph in variant.record.graphs for blob in graph.weights}
    return sum(blob.size for blob in variant.all_blobs if blob not in weights)


def test_documents_cost_little_where_they_do_not_travel_compressed(update, versions):
    assert document_bytes(versions[1]) > 0.1 * LAYER, "else there is nothing to spare"
    update("1.0.0")
    assert LAYER < update("1.1.0") < 1.02 * LAYER
    assert update("1.1.0") < 2000, "nothing was new"


def test_damaged_copies_are_done_without(update, registry, versions):
    [variant] = versions[1].variants
    made = shrunk.shrink(variant)
    assert made is not None
    spoiled = 0
    for digest, data in made.files.items():
        if data.startswith(b"\xfd7zXZ"):
            wrong = lzma.compress(random.Random(digest).randbytes(5000))
            path = registry.blob(digest)
            assert path.read_bytes() == data
            path.write_bytes(wrong[: len(data)].ljust(len(data), b"\0"))
            spoiled += 1
    assert spoiled
    update("1.0.0")
    assert update("1.1.0") > LAYER + document_bytes(versions[1])


def test_a_python_without_lzma_does_without(update, versions, monkeypatch):
    monkeypatch.setattr(shrunk, "_lzma", lambda: None)
    assert shrunk.shrink(versions[0].variants[0]) is None
    update("1.0.0")
    assert update("1.1.0") > LAYER + document_bytes(versions[1])


def test_a_server_that_compresses_gets_none(serve, versions, client):
    host = serve()
    pushed = push(client, versions[0], Reference.parse(f"http://{host}/digits:1.0.0"))
    sizes = {blob.digest: blob.size for v in versions[0].variants for blob in v.all_blobs}
    assert pushed.pushed_bytes == sum(sizes.values()) + versions[0].descriptor.size
    tag = shrunk.tag_of(versions[0].variants[0].digest)
    with urllib3.PoolManager(retries=False) as http:
        answer = http.request("GET", f"http://{host}/v2/digits/manifests/{tag}")
    assert answer.status == 404


def test_small_documents_are_not_worth_it(bundle):
    assert all(shrunk.shrink(variant) is None for variant in bundle.variants)


def test_a_copy_holds_what_it_says_to_the_byte(versions):
    [variant] = versions[0].variants
    made = shrunk.shrink(variant)
    assert made is not None
    assert made == shrunk.shrink(variant), "always the same"
    files = shrunk.files_of(made.manifest)
    assert variant.descriptor.blob in files
    assert variant.manifest.config.blob in files
    for file in set(files.values()):
        found = shrunk.unshrink(made.files[file.blob.digest], file.holds)
        assert found.keys() == set(file.holds)
        for blob, data in found.items():
            assert data == variant.blobs.read(blob, blob.size)


@pytest.mark.parametrize(
    "manifest",
    [b"", b"{}", b"[1]", b'{"schemaVersion":2,"layers":"many"}', b"\xff\xfe"],
)
def test_what_is_no_artifact_is_of_no_use(manifest):
    assert shrunk.files_of(manifest) == {}


def test_a_file_that_grows_without_end_is_cut_off():
    bomb = lzma.compress(bytes(100_000_000))
    blob = Blob(digest="sha256:" + "0" * 64, size=1000)
    assert shrunk.unshrink(bomb, [blob]) == {}
