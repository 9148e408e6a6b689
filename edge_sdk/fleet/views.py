"""What the API answers and ``edge-sdk fleet --json`` prints."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_sdk.fleet.rollout.device import Device
from edge_sdk.fleet.rollout.events import AuditEntry
from edge_sdk.fleet.rollout.state import Member, Plan, Rollout, Status
from edge_sdk.shadow.models import DesiredModel, ReportedAgent, ReportedModel
from edge_sdk.shadow.trials import MOST_CANDIDATES, Seconds, Threads, TrialResult


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the answers; unknown fields of newer servers are ignored."""


class DeviceView(View, frozen=True, kw_only=True):
    """One device.

    Attributes:
        thing: Its name.
        online: Whether it is reached now.
        last_seen: When it was last heard of, in seconds since 1970.
        profile: Device profile that its agent chooses variants for.
        labels: Its own and those given on the server.
        agent: What its agent says of itself.
        desired: What it should run.
        reported: What it does.
    """

    thing: str
    online: bool
    last_seen: float | None
    profile: str
    labels: dict[str, str]
    agent: ReportedAgent
    desired: dict[str, DesiredModel]
    reported: dict[str, ReportedModel]


class DeviceList(View, frozen=True, kw_only=True):
    """What ``fleet devices`` prints with ``--json``."""

    devices: tuple[DeviceView, ...]
    schema: str = "org.edge-sdk.fleet-devices/1"


class DeviceDetail(View, frozen=True, kw_only=True):
    """What ``fleet show``, ``label`` and ``forget`` print with ``--json``: with its last events."""

    device: DeviceView
    history: tuple[AuditEntry, ...]
    schema: str = "org.edge-sdk.fleet-device/1"


class RolloutView(View, frozen=True, kw_only=True):
    """One rollout without its devices.

    Attributes:
        id: Its number.
        plan: What was asked for.
        by: Who asked.
        status: How it stands.
        note: Why it stands like that.
        created_at: When it began, in seconds since 1970.
        ended_at: When it ended.
        stage: The stage under way, from 1; 0 before the first.
        stages: How many there are.
        phase: Whether devices of the stage try the version beside their own, or have it.
        devices: Number of devices.
        answers: How many of them have come to what; ``back`` are those taken back.
    """

    id: int
    plan: Plan
    by: str
    status: Status
    note: str
    created_at: float
    ended_at: float | None
    stage: int
    stages: int
    phase: Literal["trial", "full"]
    devices: int
    answers: dict[str, int]


class RolloutList(View, frozen=True, kw_only=True):
    """What ``fleet rollouts`` prints with ``--json``."""

    rollouts: tuple[RolloutView, ...]
    schema: str = "org.edge-sdk.fleet-rollouts/1"


class RolloutDetail(View, frozen=True, kw_only=True):
    """What commands about one rollout print with ``--json``."""

    rollout: RolloutView
    members: tuple[Member, ...]
    schema: str = "org.edge-sdk.fleet-rollout/1"


class DeployRequest(View, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``fleet deploy`` asks for.

    Attributes:
        ref: ``name:version`` of the server's own store, or a reference to a registry.
        model: Name of the model on the devices; the bundle's own unless given.
        selector: Which devices.
        stages: How fast.
        gates: ``name=value``: limits other than the default ones.
        canary: Percent of requests that a device gives to the version at first.
        approve: Whether each step after the first waits for somebody's word.
        allow_older: Whether it may replace a newer version.
        keep: Whether it stays in force for devices that appear once it is completed.
        plain_http: Whether the registry speaks HTTP.
        dry_run: Whether to say only what would be done.
    """

    ref: str
    model: str | None = None
    selector: str = "all"
    stages: str = "5,25,100"
    gates: tuple[str, ...] = ()
    canary: int | None = None
    approve: bool = False
    allow_older: bool = False
    keep: bool = False
    plain_http: bool = False
    dry_run: bool = False


class Deployment(View, frozen=True, kw_only=True):
    """What ``fleet deploy`` prints with ``--json``.

    Attributes:
        plan: What is done, with all defaults.
        rollout: Its number; ``None`` after ``--dry-run``.
        stages: The devices of each stage.
        notes: What somebody should know before.
    """

    plan: Plan
    rollout: int | None
    stages: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    schema: str = "org.edge-sdk.fleet-deployment/1"


class LabelRequest(View, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``fleet label`` asks for: labels to give, and those to take away as ``None``."""

    labels: dict[str, str | None]


class TrialRequest(View, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``convert --on`` asks for: that a device measures candidates.

    Attributes:
        candidates: Name -> reference of its bundle, as in :class:`DeployRequest`.
        seconds: Time to measure each for.
        threads: Threads of each session; 0 for as many as its profile says.
    """

    candidates: Annotated[dict[str, str], Meta(min_length=1, max_length=MOST_CANDIDATES)]
    seconds: Seconds = 3.0
    threads: Threads = 0


class TrialView(View, frozen=True, kw_only=True):
    """A trial that a device was asked for.

    Attributes:
        thing: The device.
        online: Whether it is.
        id: Of the trial; empty where none is asked for.
        result: What the device says of the trial that it heard of last, if of any.
    """

    thing: str
    online: bool
    id: str = ""
    result: TrialResult | None = None


class AuditList(View, frozen=True, kw_only=True):
    """What ``fleet audit`` prints with ``--json``, the newest entry first."""

    entries: tuple[AuditEntry, ...]
    schema: str = "org.edge-sdk.fleet-audit/1"


class Problem(View, frozen=True, kw_only=True):
    """What the API answers where it does not do what it was asked.

    Attributes:
        kind: Name of the error in :mod:`edge_sdk.errors`.
        message: What is wrong.
        where: The field or thing it is wrong in.
        remedy: What to do.
    """

    kind: str
    message: str
    where: str | None = None
    remedy: str | None = None


def device_view(device: Device) -> DeviceView:
    """A device as the API shows it."""
    return DeviceView(
        thing=device.thing,
        online=device.online,
        last_seen=device.last_seen,
        profile=device.profile,
        labels=device.labels,
        agent=device.agent,
        desired=device.desired,
        reported=device.models,
    )


def rollout_view(rollout: Rollout) -> RolloutView:
    """A rollout as the API lists it."""
    answers = Counter(
        "back" if member.wish == "back" and member.answer in ("done", "gone") else member.answer
        for member in rollout.members
    )
    return RolloutView(
        id=rollout.id,
        plan=rollout.plan,
        by=rollout.by,
        status=rollout.status,
        note=rollout.note,
        created_at=rollout.created_at,
        ended_at=rollout.ended_at,
        stage=rollout.stage + 1,
        stages=1 + max((member.stage for member in rollout.members), default=0),
        phase=rollout.phase,
        devices=len(rollout.members),
        answers=dict(sorted(answers.items())),
    )


def rollout_detail(rollout: Rollout) -> RolloutDetail:
    """A rollout with its devices."""
    return RolloutDetail(rollout=rollout_view(rollout), members=rollout.members)


def stages_of(members: tuple[Member, ...]) -> tuple[tuple[str, ...], ...]:
    """The devices of each stage."""
    last = max((member.stage for member in members), default=-1)
    return tuple(
        tuple(member.thing for member in members if member.stage == stage)
        for stage in range(last + 1)
    )
