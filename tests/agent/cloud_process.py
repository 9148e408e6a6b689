"""A real cloud for agents as processes: Mosquitto, ``edge-sdk fleet serve``, a counted wire."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_sdk.bundle.reader import Bundle
from edge_sdk.bundle.store import Store
from edge_sdk.fleet.client import FleetClient
from edge_sdk.shadow.models import SHADOW, DesiredModel, Reported
from edge_sdk.shadow.topics import ROOTS, Address, reply, request
from edge_sdk.transport.address import BrokerAddress
from edge_sdk.transport.link import Message
from edge_sdk.transport.paho_link import PahoLink
from tests.agent.releases import desired
from tests.brokers import Mosquitto, free_port
from tests.delivery.wire import Wire, wire_to
from tests.fleet.server import Server, servers

PATIENCE = 30.0
COMMAND = (sys.executable, "-m", "edge_sdk.cli.main", "agent")


def until(condition: Callable[[], Any], what: str | Callable[[], str]) -> Any:
    """Waits for a condition that must come to hold; its value."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"never came: {what if isinstance(what, str) else what()}")
        time.sleep(0.02)
    return found


@dataclass
class RealCloud:
    """What agents as processes talk to.

    Attributes:
        broker: The broker.
        server: The fleet's server.
        wire: Between agents and the server's bundles.
        reported: Thing -> all that it has reported, merged.
    """

    broker: Mosquitto
    server: Server
    wire: Wire
    console: PahoLink
    documents: dict[str, Any] = field(default_factory=dict)
    _looked: float = 0.0

    def want(self, thing: str, bundle: Bundle | None, model: str = "lookup", **fields: Any) -> None:
        """Writes what a device should run."""
        self.write(thing, {model: None if bundle is None else self.wish(bundle, **fields)})

    def write(self, thing: str, models: dict[str, DesiredModel | None]) -> None:
        """Writes desired models."""
        state = {"desired": {"models": msgspec.to_builtins(models)}}
        message = json.dumps({"state": state}).encode()
        assert self.console.publish(Message(request(_address(thing), "update"), message))

    def wish(self, bundle: Bundle, **fields: Any) -> DesiredModel:
        plain = desired(bundle, **fields)
        ref = f"{self.wire.host}/{bundle.name}:{bundle.version}"
        return msgspec.structs.replace(plain, ref=ref)

    def look(self, thing: str) -> None:
        """Asks for a shadow now and then: documents are told once, and may be lost."""
        now = time.monotonic()
        if now > self._looked + 1:
            self._looked = now
            self.console.publish(Message(request(_address(thing), "get"), b"{}"))

    def reported(self, thing: str) -> Reported:
        """What a device has reported."""
        state = self.documents.get(thing, {}).get("reported", {})
        return msgspec.convert(state, Reported)

    def wait(self, thing: str, status: str, version: str, model: str = "lookup") -> Any:
        """Waits until a device reports a status and the version that serves."""

        def found() -> Any:
            self.look(thing)
            said = self.reported(thing).models.get(model)
            return said if said and (said.status, said.version) == (status, version) else None

        return until(
            found, lambda: f"{thing} {status} {version}; it says {self.documents.get(thing)}"
        )


def _address(thing: str) -> Address:
    return Address(ROOTS[0], thing, SHADOW)


@contextmanager
def real_cloud(folder: Path, bundles: list[Bundle]) -> Iterator[RealCloud]:
    """Starts a broker and a server that hands out bundles."""
    store = Store(folder / "bundles")
    for bundle in bundles:
        store.install(bundle)
    with ExitStack() as stack:
        broker = Mosquitto(folder / "broker")
        stack.callback(broker.kill)
        broker.start()
        start = stack.enter_context(servers())
        server = start(folder / "data", "--broker", broker.url, "--store", str(store.root))
        port = int(server.serving["http"].rpartition(":")[2])
        wire = stack.enter_context(wire_to(port))
        console = PahoLink(BrokerAddress.parse(broker.url), "console")
        cloud = RealCloud(broker, server, wire, console)

        def heard(message: Message) -> None:
            said = json.loads(message.payload)
            document = said.get("current", said)["state"]
            cloud.documents[message.topic.split("/")[2]] = document

        console.subscribe(reply(_address("+"), "update", "documents"), heard)
        console.subscribe(reply(_address("+"), "get", "accepted"), heard)
        console.open(lambda connected: None)
        stack.callback(console.close)
        until(lambda: console.connected, "the console's connection")
        yield cloud


class AgentProcess:
    """``edge-sdk agent`` with a configuration of its own.

    Attributes:
        thing: Its name.
        store: Its store.
        port: Of its local API.
    """

    def __init__(self, cloud: RealCloud, folder: Path, thing: str, **lines: str) -> None:
        self.thing = thing
        self.store = folder / thing
        self.port = free_port()
        self.log = folder / f"{thing}.log"
        self._config = folder / f"{thing}.toml"
        self._process: subprocess.Popen[bytes] | None = None
        tables = {
            "": f'thing = "{thing}"\nstore = "{self.store}"\nprofile = "x86-64"\n',
            "broker": f'url = "{cloud.broker.url}"\nshortest_backoff = 0.1\n'
            "longest_backoff = 0.5\n",
            "http": f'listen = "127.0.0.1:{self.port}"\n',
            "report": "heartbeat = 1\nshortest = 0.05\n",
            "delivery": "",
            "labels": "",
        }
        for table, text in lines.items():
            tables["" if table == "top" else table] += f"{text}\n"
        self._config.write_text(
            "".join(f"[{name}]\n{text}" if name else text for name, text in tables.items())
        )

    def start(self, *deadly: str) -> None:
        """Starts it; one that is told a step and a moment kills itself there."""
        command = (
            (sys.executable, "-m", "tests.agent.deadly", *deadly, str(self._config))
            if deadly
            else (*COMMAND, "--config", str(self._config))
        )
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log)

    def once(self, *options: str) -> subprocess.CompletedProcess[str]:
        """``--once``."""
        return subprocess.run(
            [*COMMAND, "--config", str(self._config), "--once", *options],
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    def died(self) -> bool:
        """Waits until it has ended; whether by SIGKILL."""
        assert self._process
        return self._process.wait(PATIENCE) == -signal.SIGKILL

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ends it with a signal; its exit code."""
        assert self._process
        self._process.send_signal(number)
        return self._process.wait(PATIENCE)

    def close(self) -> None:
        """Kills it if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def get(self, path: str) -> Any:
        """An answer of the local API."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
            return json.loads(answer.read() or b"null")

    def ask(self, row: int = 3, model: str = "lookup") -> float:
        """A request to the model."""
        tensor = {"name": "x", "datatype": "INT64", "shape": [1], "data": [row]}
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v2/models/{model}/infer",
            json.dumps({"inputs": [tensor]}).encode(),
        )
        with urllib.request.urlopen(asked) as answer:
            return float(json.loads(answer.read())["outputs"][0]["data"][0])


@contextmanager
def agent_online(
    cloud: RealCloud, folder: Path, thing: str, **lines: str
) -> Iterator[AgentProcess]:
    """An agent that the server knows to be online; its log is printed at the end."""
    made = AgentProcess(cloud, folder, thing, **lines)
    client = FleetClient(cloud.server.serving["http"])
    made.start()
    try:
        until(
            lambda: any(d.thing == thing and d.online for d in client.devices().devices),
            f"{thing} online",
        )
        yield made
    finally:
        made.close()
        print(made.log.read_text())
