"""The store as a registry, over a real socket."""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time

import msgspec
import pytest
import urllib3
import uvicorn

from edge_sdk.bundle import oci
from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.bundle.writer import BundleWriter
from edge_sdk.fleet.blob_endpoint import app
from edge_sdk.fleet.shelf import Shelf, repository, tag
from edge_sdk.transport.fetch import fetch
from edge_sdk.transport.registry import RegistrySource
from edge_sdk.transport.registry_http import RegistryClient
from edge_sdk.transport.source import Reference
from edge_sdk.transport.transfer import Retry
from tests.bundle.forge import flip
from tests.bundle.samples import AMD64, make_bundle, make_record
from tests.delivery.wire import wire_to


@pytest.fixture
def store(bundle, tmp_path):
    """A server's store with a bundle in it."""
    store = Store(tmp_path / "served")
    store.install(bundle)
    return store


@pytest.fixture
def host(store):
    """``host:port`` under which the store is served."""
    config = uvicorn.Config(app(store.root), port=0, http="h11", ws="none", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def ask(host):
    """Sends one request."""
    with urllib3.PoolManager(retries=False) as http:
        yield lambda path, method="GET", **headers: http.request(
            method, f"http://{host}{path}", headers=headers
        )


def test_a_device_fetches_from_it(host, bundle, tmp_path):
    source = RegistrySource(RegistryClient(lambda _: None))
    fetched = fetch(source, Reference.parse(f"{host}/digits:1.0.0"), tmp_path / "store")
    store = Store(tmp_path / "store")
    store.enter(fetched.descriptor, fetched.bundle.digest)
    assert store.open("digits").descriptor.digest == bundle.descriptor.digest
    assert list(store.verify()) == []
    source.close()


@pytest.mark.needs("skopeo", "skopeo")
def test_skopeo_copies_from_it(host, bundle, tmp_path):
    command = ["skopeo", "copy", "--all", "--src-tls-verify=false"]
    subprocess.run(
        [*command, f"docker://{host}/digits:1.0.0", f"oci:{tmp_path / 'copy'}:1.0.0"],
        check=True,
        capture_output=True,
    )
    assert open_bundle(tmp_path / "copy").descriptor.digest == bundle.descriptor.digest


def test_what_is_installed_later_is_served_too(ask, store, tmp_path):
    assert ask("/v2/digits/manifests/2.0.0").status == 404
    store.install(open_bundle(make_bundle(tmp_path / "v2", version="2.0.0", head=b"tuned")))
    assert ask("/v2/digits/manifests/2.0.0").status == 200
    assert json.loads(ask("/v2/digits/tags/list").data) == {
        "name": "digits",
        "tags": ["1.0.0", "2.0.0"],
    }


def test_it_says_what_it_is(ask):
    answer = ask("/v2/")
    assert answer.status == 200
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_documents_by_tag_and_digest(ask, bundle, method):
    index, manifest = bundle.descriptor, bundle.variants[0].descriptor
    for name, found in (("1.0.0", index), (index.digest, index), (manifest.digest, manifest)):
        answer = ask(f"/v2/digits/manifests/{name}", method)
        assert answer.status == 200
        assert answer.headers["Content-Type"] == found.media_type
        assert answer.headers["Docker-Content-Digest"] == found.digest
        assert int(answer.headers["Content-Length"]) == found.size
        assert len(answer.data) == (found.size if method == "GET" else 0)


def test_blobs_whole_in_part_and_by_head(ask, bundle):
    blob = bundle.variants[0].files["variant.json"].blob
    data = bundle.variants[0].blob_path(blob.digest).read_bytes()
    path = f"/v2/digits/blobs/{blob.digest}"
    assert ask(path).data == data
    assert int(ask(path, "HEAD").headers["Content-Length"]) == blob.size
    part = ask(path, Range="bytes=100-")
    assert (part.status, part.data) == (206, data[100:])
    assert part.headers["Content-Range"] == f"bytes 100-{len(data) - 1}/{len(data)}"
    assert ask(path, Range=f"bytes={len(data)}-").status == 416


def layer(tmp_path, store, data):
    """A version with one layer more, in the store."""
    with BundleWriter(tmp_path / "more") as writer:
        record = make_record(writer, "x86-64", version="3.0.0")
        graph = record.graphs[0]
        weights = (*graph.weights, writer.blobs.put([data]))
        graph = msgspec.structs.replace(graph, weights=weights)
        writer.add_variant(msgspec.structs.replace(record, graphs=(graph,)), AMD64)
        store.install(open_bundle(writer.finish()))
    return weights[-1]


def test_documents_and_graphs_are_compressed_for_who_accepts_it(ask, store, bundle, tmp_path):
    text = "".join(f"node {number}\n" for number in range(9999)).encode()
    graph = layer(tmp_path, store, text)
    path = f"/v2/digits/blobs/{graph.digest}"
    for where in (path, "/v2/digits/manifests/1.0.0"):
        plain, packed = ask(where), ask(where, **{"Accept-Encoding": "deflate, gzip"})
        assert "Content-Encoding" not in plain.headers
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"
        assert int(packed.headers["Content-Length"]) < len(plain.data) / 2
        assert packed.data == plain.data, "urllib3 has decompressed it"
    part = ask(path, Range="bytes=100-", **{"Accept-Encoding": "gzip"})
    assert (part.status, part.data) == (206, text[100:])
    head = ask(path, "HEAD", **{"Accept-Encoding": "gzip"})
    assert int(head.headers["Content-Length"]) == len(text)


def test_weights_are_not_compressed(ask, store, tmp_path):
    data = random.Random(1).randbytes(100_000)
    blob = layer(tmp_path, store, data)
    answer = ask(f"/v2/digits/blobs/{blob.digest}", **{"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in answer.headers
    assert answer.data == data


def test_a_compressed_blob_that_breaks_off_goes_on_uncompressed(host, store, tmp_path):
    draw = random.Random(1)
    blob = layer(
        tmp_path, store, "".join(f"{draw.randrange(10**9)}\n" for _ in range(99_999)).encode()
    )
    with wire_to(int(host.rpartition(":")[2])) as wire:
        wire.cut_after, wire.cuts_left = blob.size // 4, 1
        source = RegistrySource(RegistryClient(lambda _: None))
        reference = Reference.parse(f"{wire.host}/digits:3.0.0")
        retry = Retry(shortest=0.01)
        fetched = fetch(source, reference, tmp_path / "store", parallel=1, retry=retry)
        source.close()
        assert wire.cuts == 1
    BlobStore(tmp_path / "store").verify(blob)
    assert blob.size // 4 < fetched.fetched_bytes < blob.size


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/none/manifests/1.0.0", "MANIFEST_UNKNOWN"),
        ("/v2/digits/manifests/3.0.0", "MANIFEST_UNKNOWN"),
        ("/v2/digits/manifests/sha256:" + "0" * 64, "MANIFEST_UNKNOWN"),
        ("/v2/digits/blobs/sha256:" + "0" * 64, "BLOB_UNKNOWN"),
        ("/v2/none/tags/list", "NAME_UNKNOWN"),
        ("/v2/_catalog", "NAME_UNKNOWN"),
        ("/v2/digits/blobs/..%2F..%2Findex.json", "NAME_UNKNOWN"),
        ("/v2/digits/blobs/sha256:..%2F..%2Findex.json", "NAME_UNKNOWN"),
        ("/v2/digits/blobs/index.json", "BLOB_UNKNOWN"),
        ("/v2/..%2F..%2Fdigits/manifests/1.0.0", "MANIFEST_UNKNOWN"),
    ],
)
def test_what_is_not_there_is_404(ask, path, code):
    answer = ask(path)
    assert answer.status == 404
    assert json.loads(answer.data)["errors"][0]["code"] == code


def test_every_blob_of_a_repository_that_does_not_exist_is_404(ask, bundle):
    blob = bundle.variants[0].files["variant.json"].digest
    assert ask(f"/v2/other/blobs/{blob}").status == 404


def test_a_layer_is_no_manifest(ask, bundle):
    for layer in bundle.variants[0].manifest.layers:
        assert ask(f"/v2/digits/manifests/{layer.digest}").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_written(ask, store, method):
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    for path in ("blobs/uploads/", "manifests/1.0.0", "manifests/4.0.0"):
        answer = ask(f"/v2/digits/{path}", method)
        assert answer.status in (404, 405)
    assert json.loads(answer.data)["errors"][0]["code"] == "UNSUPPORTED"
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*")} == before


def test_links_are_not_followed(ask, store, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    digest = "sha256:" + "7" * 64
    store.blobs.path(digest).symlink_to(secret)
    assert ask(f"/v2/digits/blobs/{digest}").status == 404


def test_a_damaged_document_is_not_given_away(ask, store, bundle):
    flip(store.blobs.path(bundle.descriptor.digest), 5)
    answer = ask("/v2/digits/manifests/1.0.0")
    assert answer.status == 500
    assert "damaged" in json.loads(answer.data)["errors"][0]["message"]


def test_a_store_that_is_not_there_yet_is_empty(tmp_path):
    shelf = Shelf(tmp_path / "none")
    assert shelf.entries("digits") == ()
    assert shelf.document("digits", "1.0.0") is None
    assert shelf.blob("digits", "sha256:" + "0" * 64) is None


@pytest.mark.parametrize("name", ["Digits", "a.b", "A__b", "x._y", "Smol+chat", "a-+b", "a--b"])
@pytest.mark.parametrize("version", ["1.0.0", "1.0.0+build.5", "2024-01-01"])
def test_every_name_and_version_is_a_reference(name, version):
    oci.check_name(name, "name")
    oci.check_name(version, "version")
    found = Reference.parse(f"localhost:8080/{repository(name)}:{tag(version)}")
    assert found.repository == repository(name)
