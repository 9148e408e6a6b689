from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import edge_sdk
from edge_sdk.serving.router import Router
from edge_sdk.serving.served import Served
from edge_sdk.serving.server import Running, serve
from tests.generation import tiny
from tests.runtime.bundles import HERE


@dataclass(frozen=True)
class Response:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]


@dataclass(frozen=True)
class Api:
    """A server, and the router behind it."""

    router: Router
    running: Running

    def open(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.running.host, self.running.port, timeout=30)

    def get(self, path: str) -> Response:
        return self.send("GET", path)

    def post(self, path: str, content: Any) -> Response:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.send("POST", path, body)

    def send(self, method: str, path: str, body: bytes | None = None) -> Response:
        connection = self.open()
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())
        finally:
            connection.close()

    def infer(self, name: str, data: Any, datatype: str = "FP32", shape: Any = None) -> Response:
        tensor = {
            "name": "x",
            "shape": shape or [len(data)],
            "datatype": datatype,
            "data": data,
        }
        return self.post(f"/v2/models/{name}/infer", {"inputs": [tensor]})


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Waits for a condition; fails when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.001)


def load(bundle: Path, digest: str = "sha256:" + "0" * 64, **settings) -> Served:
    return Served(edge_sdk.load(bundle, HERE, threads=1, **settings), digest)


@pytest.fixture(scope="session")
def server() -> Iterator[Api]:
    router = Router()
    running = serve(router)
    yield Api(router, running)
    running.stop()


@pytest.fixture
def router(server: Api) -> Iterator[Router]:
    yield server.router
    server.router.close()
    server.router.expect(())


@pytest.fixture
def api(server: Api, router: Router) -> Api:
    return server


@pytest.fixture
def put(router: Router, tmp_path: Path) -> Callable[..., Served]:
    """Makes a bundle, and serves it under a name."""

    def put(name: str, write: Callable[..., Path], *args, **settings) -> Served:
        served = load(write(tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}", *args))
        router.swap(name, served)
        return served

    return put


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    adapters = {"pirate": tiny.adapter(0)}
    return tiny.bundle(tmp_path_factory.mktemp("tiny") / "bundle", adapters=adapters)


@pytest.fixture(scope="session")
def shared_chat(tiny_bundle: Path) -> Iterator[Served]:
    served = load(tiny_bundle)
    yield served
    served.retire()


@pytest.fixture
def chat(router: Router, tiny_bundle: Path) -> Served:
    """The tiny decoder, served as ``assistant``."""
    served = load(tiny_bundle)
    router.swap("assistant", served)
    return served
