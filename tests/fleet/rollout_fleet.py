"""A fleet of simulated devices: each takes what it is asked for and reports what became of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from edge_sdk.fleet.rollout.decide import Decision, decide
from edge_sdk.fleet.rollout.device import Device
from edge_sdk.fleet.rollout.events import Event
from edge_sdk.fleet.rollout.layout import lay_out
from edge_sdk.fleet.rollout.state import ENDED, Plan, Rollout, wanted
from edge_sdk.shadow.models import (
    DesiredModel,
    Health,
    ReportedAgent,
    ReportedCanary,
    ReportedModel,
)

Kind = Literal["good", "refuses", "slow", "silent", "offline", "vanishes", "errors", "lags"]
"""How a device takes a new version.

``refuses`` fails its self-test, ``slow`` downloads for longer than a silent one is waited for,
``silent`` never answers, ``offline`` is never reached, ``vanishes`` goes offline with it,
``errors`` and ``lags`` run it badly.
"""

HARMFUL = frozenset(("refuses", "silent", "vanishes", "errors", "lags"))
OLD = DesiredModel(ref="hub/m:1.0.0", digest="sha256:old", version="1.0.0")
PLAN = Plan(model="m", ref="hub/m:2.0.0", digest="sha256:new", version="2.0.0")
WELL = Health(requests=100, errors=0, p95_ms=10.0, window_s=30)


class Fleet:
    """Devices by thing, a rollout over them, and a clock."""

    def __init__(self, kinds: dict[str, Kind], plan: Plan = PLAN, old: bool = True) -> None:
        self.kinds = kinds
        self.now = 1000.0
        self.devices = {
            thing: Device(
                thing=thing,
                online=kind != "offline",
                agent=ReportedAgent(profile="x86-64"),
                desired={"m": OLD} if old else {},
                models={"m": _runs(OLD)} if old else {},
            )
            for thing, kind in kinds.items()
        }
        members = lay_out(plan, self.devices).members
        self.rollout = Rollout(id=1, plan=plan, by="somebody", created_at=self.now, members=members)
        self.events: list[Event] = []
        self.asked_at: dict[str, float] = {}
        self.most_asked: list[int] = []

    def act(self, decision: Decision) -> None:
        """Takes over a decision and tells the devices what follows from it."""
        self.events += decision.events
        for member in decision.rollout.unwritten():
            desired = wanted(member, decision.rollout.plan)
            device = self.devices[member.thing]
            models = {} if desired is None else {"m": desired}
            self.devices[member.thing] = msgspec.structs.replace(device, desired=models)
            self.asked_at[member.thing] = self.now
        replies = {m.thing: (m.wish, "") for m in decision.rollout.unwritten()}
        self.rollout = decision.rollout.with_replies(replies, self.now)
        self.most_asked.append(len(self.having()))

    def having(self) -> set[str]:
        """Devices that are meant to run or try the new version now."""
        return {
            thing
            for thing, device in self.devices.items()
            if (desired := device.desired.get("m"))
            and PLAN.digest in (desired.digest, desired.canary and desired.canary.digest)
        }

    def step(self, seconds: float = 1.0) -> None:
        """Lets devices do what they were asked, then decides."""
        self.now += seconds
        for thing in self.devices:
            self._react(thing)
        self.act(decide(self.rollout, self.devices, self.now))

    def run(self, until: Callable[[Rollout], bool] | None = None, steps: int = 4000) -> Rollout:
        """Steps on until something holds, by default until the rollout has ended."""
        until = until or (lambda rollout: rollout.status in ENDED)
        for _ in range(steps):
            if until(self.rollout):
                return self.rollout
            self.step()
        raise AssertionError(f"still {self.rollout.status}: {self.rollout.note}")

    def kinds_of_events(self) -> list[str]:
        return [event.kind for event in self.events]

    def _react(self, thing: str) -> None:
        device, kind = self.devices[thing], self.kinds[thing]
        desired = device.desired.get("m")
        if kind == "offline" or thing not in self.asked_at:
            return
        if desired is None:
            self.devices[thing] = msgspec.structs.replace(device, models={}, online=True)
        elif PLAN.digest in (desired.digest, desired.canary and desired.canary.digest):
            elapsed = self.now - self.asked_at[thing]
            if elapsed >= (90 if kind == "slow" else 2):
                self.devices[thing] = _taken(device, desired, kind)
            elif kind == "slow":
                self.devices[thing] = _downloading(device, elapsed / 90)
        else:
            self.devices[thing] = msgspec.structs.replace(
                device, models={"m": _runs(desired)}, online=True
            )


def _runs(desired: DesiredModel) -> ReportedModel:
    return ReportedModel(
        version=desired.version, digest=desired.digest, wanted=desired.digest,
        generation=desired.generation, status="running", health=WELL,
    )  # fmt: skip


def _downloading(device: Device, progress: float) -> Device:
    model = device.models.get("m", ReportedModel())
    model = msgspec.structs.replace(
        model, status="downloading", wanted=PLAN.digest, progress=round(progress, 1)
    )
    return msgspec.structs.replace(device, models={"m": model})


def _taken(device: Device, desired: DesiredModel, kind: Kind) -> Device:
    """The device after it has tried to do what it was asked."""
    if kind == "silent":
        return device
    health = {
        "errors": msgspec.structs.replace(WELL, errors=30),
        "lags": msgspec.structs.replace(WELL, p95_ms=40.0),
    }.get(kind, WELL)
    old = device.models.get("m", ReportedModel())
    failed = kind == "refuses"
    if desired.canary is not None:
        canary = ReportedCanary(
            version="2.0.0", digest=PLAN.digest, status="failed" if failed else "running",
            error="self-test" if failed else None, health=None if failed else health,
        )  # fmt: skip
        model = msgspec.structs.replace(old, canary=canary, generation=desired.generation)
    elif failed:
        model = msgspec.structs.replace(
            old, status="failed", error="self-test", wanted=PLAN.digest,
            generation=desired.generation, canary=None,
        )  # fmt: skip
    else:
        model = msgspec.structs.replace(_runs(desired), health=health, before=WELL)
    return msgspec.structs.replace(device, models={"m": model}, online=kind != "vanishes")
