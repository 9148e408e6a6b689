"""The demo's fleet: one server, three devices, and what is asked of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.cli.demo.bundles import NAME
from edge_sdk.cli.demo.processes import Child, Children, ask, free_port, reached
from edge_sdk.cli.demo.result import DemoAnswer, DemoRollout
from edge_sdk.fleet.client import FleetClient
from edge_sdk.fleet.rollout.state import ENDED
from edge_sdk.fleet.views import DeployRequest, DeviceView, RolloutView

STAGES = "30,100"
SOAK_S = 1


@dataclass
class Device:
    """One device of the demo.

    Attributes:
        thing: Its name, and that of its store.
        profile: Whose variant it takes.
        site: Where it stands; a label for selectors.
        address: ``host:port`` of its local API.
        agent: Its process.
    """

    thing: str
    profile: str
    site: str
    address: str
    agent: Child | None = None


class Fleet:
    """A server and devices as processes.

    Args:
        folder: Of everything that they keep.
        children: Who ends them.
        devices: (thing, profile, site) of each.

    Attributes:
        devices: The devices.
        serving: Where the server is reached.
    """

    def __init__(
        self, folder: Path, children: Children, devices: Sequence[tuple[str, str, str]]
    ) -> None:
        self._folder = folder
        self._children = children
        self.devices = [
            Device(thing, profile, site, f"127.0.0.1:{free_port()}")
            for thing, profile, site in devices
        ]
        # Not the usual ports: there may be another fleet on this machine.
        self.server = children.start(
            "server", "fleet", "serve", "--data", "fleet", "--json",
            "--http", f"127.0.0.1:{free_port()}", "--broker-port", str(free_port()),
        )  # fmt: skip
        self.serving = children.wait("the server", lambda: reached(self.server))
        self._client = FleetClient(self.serving.http)

    def start(self, device: Device) -> str:
        """Starts a device's agent and waits until the server sees it; gives the command."""
        device.agent = self._children.start(
            device.thing, "agent", "--thing", device.thing, "--broker", self.serving.broker,
            "--store", device.thing, "--profile", device.profile,
            "--label", f"site={device.site}", "--http", device.address, "--log", "text",
        )  # fmt: skip
        return device.agent.command

    def views(self) -> tuple[DeviceView, ...]:
        """The devices as the server sees them."""
        return self._client.devices().devices

    def wait_for(self, thing: str, what: str, holds: Callable[[DeviceView], bool]) -> DeviceView:
        """Waits until something holds of a device as the server sees it.

        Raises:
            FleetError: It does not come to that, or a process has ended.
        """

        def found() -> DeviceView | None:
            for view in self.views():
                if view.thing == thing and holds(view):
                    return view
            return None

        return self._children.wait(f"{thing}: {what}", found)

    def install(self, bundle: Path) -> None:
        """Puts a bundle into the server's own store."""
        Store(self._folder / "fleet" / "store").install(open_bundle(bundle))

    def deploy(self, version: str) -> int:
        """Begins a rollout to all devices; gives its number."""
        request = DeployRequest(ref=f"{NAME}:{version}", stages=STAGES, gates=(f"soak_s={SOAK_S}",))
        number = self._client.deploy(request).rollout
        assert number is not None
        return number

    def follow(
        self, number: int, say: Callable[[RolloutView], None],
        until: Callable[[RolloutView], bool] = lambda view: view.status in ENDED,
    ) -> RolloutView:  # fmt: skip
        """Tells of every change of a rollout, until it has ended or come to something.

        Raises:
            FleetError: It does not come to that, or a process has ended.
        """
        last: RolloutView | None = None

        def found() -> RolloutView | None:
            nonlocal last
            view = self._client.rollout(number).rollout
            if view != last:
                last = view
                say(view)
            return view if until(view) else None

        return self._children.wait(f"rollout {number}", found)

    def ask(self, device: Device, question: str) -> DemoAnswer:
        """Asks the model on a device."""
        begun = time.perf_counter()
        spoken = ask(device.address, NAME, question)
        return DemoAnswer(
            thing=device.thing,
            version=spoken.version,
            question=question,
            answer=spoken.text,
            ms=round((time.perf_counter() - begun) * 1e3, 1),
        )


def outcome(view: RolloutView) -> DemoRollout:
    """What is told of a rollout that has ended."""
    return DemoRollout(
        version=view.plan.version,
        status=view.status,
        note=view.note,
        seconds=round((view.ended_at or time.time()) - view.created_at, 1),
    )
