"""Bytes that a device fetches for a dialogue model, for one changed layer, and for none."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.fleet import cloud
from benchmarks.llm import assets
from benchmarks.llm.memory import RECIPE
from benchmarks.result import Outcome, Row
from edge_sdk.bundle.reader import Bundle, open_bundle
from edge_sdk.bundle.record import Blob
from edge_sdk.transport.fetch import fetch
from edge_sdk.transport.registry import RegistrySource
from edge_sdk.transport.source import Reference

MB = 1_000_000


class Counter:
    """A proxy that counts what the server sends.

    Attributes:
        port: Where it listens.
        received: Bytes from the server so far, with all of HTTP around them.
    """

    def __init__(self, server: tuple[str, int]) -> None:
        self.received = 0
        self._server = server
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections, and ends those there are."""
        for end in (self._listener, *self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(self._server)
                self._open += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(*ends, far), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 18):
                if source is far:
                    with self._lock:
                        self.received += len(data)
                target.sendall(data)
        for end in (source, target):  # wakes who reads the other way, which close() does not
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def run(quick: bool) -> Outcome:
    """Three versions fetched one after another into one store."""
    shape = "135m" if quick else "360m"
    first, tuned, same = (
        open_bundle(assets.bundle(shape, RECIPE, changed=changed, version=version))
        for changed, version in ((False, "1.0.0"), (True, "1.1.0"), (False, "1.2.0"))
    )
    layer = sum(blob.size for blob in _weights(tuned) - _weights(first))
    full, changed, unchanged = _fetched(first, tuned, same)
    return Outcome(
        rows=(
            Row(
                f"SmolLM2-{shape.upper()} shape, {RECIPE}, bytes on the wire: the first version; "
                "one with a layer changed; one with no weight changed",
                f"{full / MB:.1f} MB; {changed / MB:.2f} MB ({changed / layer - 1:.1%} more than "
                f"the layer's weights); {unchanged / 1000:.0f} kB",
            ),
        ),
        figures={
            "first_bytes": full,
            "layer_bytes": layer,
            "changed_bytes": changed,
            "unchanged_bytes": unchanged,
        },
    )


def _fetched(*bundles: Bundle) -> list[int]:
    """Bytes that crossed the wire for each, in turn, into one store."""
    found = []
    with (
        cloud.cloud(bundles) as here,
        _counted(urlsplit(here.http).netloc) as counter,
        tempfile.TemporaryDirectory(dir=cloud.CACHE) as store,
        closing(RegistrySource()) as source,
    ):
        for bundle in bundles:
            before = counter.received
            name = f"127.0.0.1:{counter.port}/{bundle.name}:{bundle.version}"
            fetch(source, Reference.parse(name), Path(store), profile=assets.PROFILE)
            found.append(counter.received - before)
    return found


@contextmanager
def _counted(server: str) -> Iterator[Counter]:
    host, _, port = server.rpartition(":")
    counter = Counter((host, int(port)))
    try:
        yield counter
    finally:
        counter.close()


def _weights(bundle: Bundle) -> set[Blob]:
    """Those of the model; the graph with an int8 cache has that cache's scales beside them."""
    main = bundle.variant(assets.PROFILE).record.graphs[0]
    return set(main.weights)
