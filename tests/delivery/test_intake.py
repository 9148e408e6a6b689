"""Pushing to a fleet's own server, over a real socket."""

from __future__ import annotations

import base64
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import urllib3

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.errors import TransferError
from edge_sdk.transport.credentials import Credentials
from edge_sdk.transport.fetch import fetch
from edge_sdk.transport.push import push
from edge_sdk.transport.registry import RegistrySource
from edge_sdk.transport.registry_http import RegistryClient
from edge_sdk.transport.source import Reference
from tests.delivery.large import make_large

pytest.importorskip("starlette", reason="a device has no fleet's server")
uvicorn = pytest.importorskip("uvicorn", reason="a device has no fleet's server")

Serve = Callable[..., str]


@pytest.fixture
def serve(tmp_path) -> Iterator[Serve]:
    """Serves a store that does not exist yet; gives ``host:port``."""
    from edge_sdk.fleet.blob_endpoint import app
    from edge_sdk.fleet.door import Door

    running = []

    def start(token: str | None = None, writable: bool = True) -> str:
        asgi = app(tmp_path / "served", Door(token) if writable else None)
        server = uvicorn.Server(
            uvicorn.Config(asgi, port=0, http="h11", ws="none", log_config=None)
        )
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        return f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join()


def reference(host: str, name: str = "digits", tag: str = "1.0.0") -> Reference:
    return Reference.parse(f"http://{host}/{name}:{tag}")


@pytest.fixture
def large(tmp_path):
    return open_bundle(make_large(tmp_path / "large", 4, 400_000))


def test_a_pushed_bundle_is_installed_and_served(serve, large, tmp_path):
    host = serve()
    first = push(RegistryClient(), large, reference(host))
    assert first.digest == large.descriptor.digest
    assert first.pushed_bytes > 1_600_000
    store = Store(tmp_path / "served")
    assert [(e.name, e.version) for e in store.ls()] == [("digits", "1.0.0")]
    assert list(store.verify()) == []
    again = push(RegistryClient(), large, reference(host))
    assert again.pushed_bytes < 10_000  # the image index alone
    fetched = fetch(RegistrySource(), reference(host), tmp_path / "pulled")
    assert fetched.bundle.digest == large.descriptor.digest


@pytest.mark.needs("skopeo", "skopeo")
def test_skopeo_pushes_too(serve, large, tmp_path):
    host = serve()
    command = ["skopeo", "copy", "--all", "--dest-tls-verify=false"]
    target = f"docker://{host}/digits:1.0.0"
    done = subprocess.run(
        [*command, f"oci:{large.path}", target], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert [e.descriptor.digest for e in Store(tmp_path / "served").ls()] == [
        large.descriptor.digest
    ]


def test_only_who_shows_the_token_may_push(serve, large):
    host = serve(token="open sesame")
    with pytest.raises(TransferError, match="wants to know who asks"):
        push(RegistryClient(lambda _: None), large, reference(host))
    with pytest.raises(TransferError, match="does not allow this"):
        push(RegistryClient(lambda _: Credentials("me", "close sesame")), large, reference(host))
    push(RegistryClient(lambda _: Credentials("me", "open sesame")), large, reference(host))


def test_without_a_token_a_name_from_elsewhere_is_refused(serve):
    host = serve()
    with urllib3.PoolManager() as http:
        url = f"http://{host}/v2/digits/blobs/uploads/"
        answer = http.request("POST", url, headers={"Host": "evil.example"})
        assert answer.status == 403


def test_a_store_without_a_door_takes_nothing(serve, large):
    with pytest.raises(TransferError, match="read-only"):
        push(RegistryClient(), large, reference(serve(writable=False)))


def test_a_bundle_goes_by_its_own_name(serve, large, tmp_path):
    host = serve()
    with pytest.raises(TransferError, match=r"push it to digits:1\.0\.0"):
        push(RegistryClient(), large, reference(host, tag="2.0.0"))
    with pytest.raises(TransferError, match=r"push it to digits:1\.0\.0"):
        push(RegistryClient(), large, reference(host, name="other"))
    assert not (tmp_path / "served" / "index.json").exists()


def test_wrong_bytes_and_incomplete_bundles_are_refused(serve, large, tmp_path):
    host = serve()
    with urllib3.PoolManager() as http:
        digest = large.variants[0].digest
        where = f"http://{host}/v2/digits/blobs/uploads/{'0' * 32}?digest={digest}"
        assert http.request("PUT", where, body=b"others").status == 400
        index = large.descriptor
        data = (large.path / "blobs/sha256" / index.digest.removeprefix("sha256:")).read_bytes()
        answer = http.request(
            "PUT",
            f"http://{host}/v2/digits/manifests/1.0.0",
            body=data,
            headers={"Content-Type": index.media_type},
        )
        assert answer.status == 400
        assert b"missing" in answer.data
    assert not (tmp_path / "served" / "index.json").exists()
    assert list((tmp_path / "served" / "tmp").iterdir()) == []


def test_a_deleted_bundle_frees_its_blobs(serve, large, tmp_path):
    host = serve(token="t")
    push(RegistryClient(lambda _: Credentials("", "t")), large, reference(host))
    served = Store(tmp_path / "served")
    assert len(list(served.blobs.folder.iterdir())) > 4
    shown = base64.b64encode(b":t").decode()
    with urllib3.PoolManager() as http:
        url = f"http://{host}/v2/digits/manifests/1.0.0"
        assert http.request("DELETE", url).status == 401
        headers = {"Authorization": f"Basic {shown}"}
        assert http.request("DELETE", url, headers=headers).status == 202
        assert http.request("DELETE", url, headers=headers).status == 404
    assert served.ls() == ()
    assert list(served.blobs.folder.iterdir()) == []


def test_a_bundle_that_is_removed_takes_nothing_from_one_that_is_being_pushed(
    serve, large, tmp_path
):
    host = serve()
    push(RegistryClient(), large, reference(host))
    other = open_bundle(make_large(tmp_path / "other", 4, 400_000, version="2.0.0"))
    client, removed = RegistryClient(), []
    request = client.request

    def remove_first(method, reference, target, **more):
        if (method, target) == ("PUT", "manifests/2.0.0"):  # all else has come
            with urllib3.PoolManager() as http:
                answer = http.request("DELETE", f"http://{host}/v2/digits/manifests/1.0.0")
                removed.append(answer.status)
        return request(method, reference, target, **more)

    client.request = remove_first
    push(client, other, reference(host, tag="2.0.0"))
    assert removed == [202]
    store = Store(tmp_path / "served")
    assert [e.version for e in store.ls()] == ["2.0.0"]
    assert list(store.verify()) == []


def test_an_upload_that_breaks_off_leaves_nothing(serve, tmp_path):
    host = serve()
    address, _, port = host.rpartition(":")
    left, digest = tmp_path / "served" / "tmp", f"sha256:{'0' * 64}"
    for method in ("PATCH", "PUT"):
        with socket.create_connection((address, int(port))) as client:
            client.sendall(
                f"{method} /v2/digits/blobs/uploads/{'0' * 32}?digest={digest} HTTP/1.1\r\n"
                f"Host: {host}\r\nContent-Length: 1000000\r\n\r\n".encode()
                + b"x" * 200_000
            )
            wait_for(lambda: left.is_dir() and [p for p in left.iterdir() if p.stat().st_size])
        wait_for(lambda: not list(left.iterdir()))


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "nothing came"
        time.sleep(0.01)
