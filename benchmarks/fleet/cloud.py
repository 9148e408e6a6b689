"""A fleet's server with its own Mosquitto, and agents, as users start them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from converters import convert
from edge_sdk.bundle.reader import Bundle, open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.errors import WorkError
from edge_sdk.fleet.client import FleetClient
from edge_sdk.fleet.views import DeployRequest, DeviceView

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build" / "benchmarks" / "fleet"
DIGITS = ROOT / "examples" / "digits"
PROFILE = "x86-64"
COMMAND = (sys.executable, "-m", "edge_sdk.cli.main")
PATIENCE = 120.0
T = TypeVar("T")


@dataclass(frozen=True)
class Cloud:
    """What agents and operators talk to.

    Attributes:
        process: Number of the server's process.
        broker: URL of its broker.
        http: URL of its API and of its bundles.
        client: For its API.
    """

    process: int
    broker: str
    http: str
    client: FleetClient

    def deploy(self, bundle: Bundle) -> float:
        """Deploys to all devices at once; seconds until all of them run it."""
        started = time.perf_counter()
        reference = f"{bundle.name}:{bundle.version}"
        request = DeployRequest(ref=reference, stages="100", gates=("soak_s=0",), allow_older=True)
        rollout = self.client.deploy(request).rollout
        assert rollout is not None
        digest = bundle.descriptor.digest
        until(lambda: all(_runs(device, bundle.name, digest) for device in self.devices()))
        seconds = time.perf_counter() - started
        for _ in self.client.progress(rollout):
            pass  # until the rollout has ended
        return seconds

    def devices(self) -> Sequence[DeviceView]:
        """All devices there are."""
        return self.client.devices().devices


@dataclass(frozen=True)
class Agent:
    """An agent that runs.

    Attributes:
        thing: Its name.
        process: Number of its process.
        port: Of its local API.
    """

    thing: str
    process: int
    port: int


def until(condition: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Waits for something to become true, and gives it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise WorkError(f"waited in vain for {seconds:.0f} s")
        time.sleep(0.02)
    return found


def bundles(count: int) -> list[Bundle]:
    """Versions of the digits example, made once."""
    found = []
    for number in range(1, count + 1):
        path = CACHE / f"digits-{number}.bundle"
        if not path.is_dir():
            data = DIGITS / "calibration.npz"
            convert(DIGITS / "digits.onnx", [PROFILE], path, version=f"{number}.0.0", data=data)
        found.append(open_bundle(path))
    return found


@contextmanager
def cloud(bundles: Sequence[Bundle] = ()) -> Iterator[Cloud]:
    """Starts a server that hands out bundles; on a disk, because durability is what is timed.

    Raises:
        WorkError: Mosquitto is not installed, or the server does not start.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=CACHE)))
        store = Store(folder / "store")
        for bundle in bundles:
            store.install(bundle)
        process = stack.enter_context(
            running("fleet", "serve", "--json", "--data", str(folder), "--http", "127.0.0.1:0")
        )
        serving = _first_object(process)
        if serving["broker_kind"] != "Mosquitto":
            raise WorkError("mosquitto is not installed", remedy="apt-get install mosquitto")
        client = FleetClient(serving["http"])
        yield Cloud(process.pid, serving["broker"], serving["http"], client)


@contextmanager
def agents(cloud: Cloud, count: int) -> Iterator[list[Agent]]:
    """Starts agents with empty stores, and waits until the server knows them all."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=CACHE)))
        started = []
        for number in range(count):
            thing, port = f"gateway-{number}", 28_000 + number
            process = stack.enter_context(
                running(
                    "agent", "--thing", thing, "--broker", cloud.broker, "--profile", PROFILE,
                    "--store", str(folder / thing), "--http", f"127.0.0.1:{port}",
                )
            )  # fmt: skip
            started.append(Agent(thing, process.pid, port))
        until(lambda: sum(one.online and bool(one.profile) for one in cloud.devices()) == count)
        yield started


@contextmanager
def running(*words: str, prefix: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """An ``edge-sdk`` command that runs meanwhile; its log is lost.

    Args:
        words: The command and its options.
        prefix: Command that runs it, for example inside a control group.
    """
    process = subprocess.Popen(
        [*prefix, *COMMAND, *words],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def _first_object(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    printed = ""
    while not printed.endswith("}\n"):
        line = process.stdout.readline()
        if not line:
            raise WorkError("the fleet's server did not start", remedy="run edge-sdk fleet serve")
        printed += line
    found: dict[str, Any] = json.loads(printed)
    return found


def _runs(device: DeviceView, model: str, digest: str) -> bool:
    reported = device.reported.get(model)
    return reported is not None and (reported.digest, reported.status) == (digest, "running")
