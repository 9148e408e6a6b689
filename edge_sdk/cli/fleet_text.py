"""What ``edge-sdk fleet`` prints for people."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime

from edge_sdk.cli.output import human_bytes, table
from edge_sdk.fleet.rollout.events import AuditEntry
from edge_sdk.fleet.views import (
    Deployment,
    DeviceDetail,
    DeviceView,
    RolloutDetail,
    RolloutView,
)
from edge_sdk.shadow.models import DesiredModel, Health, ReportedModel

_PROMPT = 60.0  # seconds that clocks may differ by, and a message may take
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def devices(views: Iterable[DeviceView]) -> str:
    """A table of devices."""
    rows = [
        (
            view.thing,
            "online" if view.online else "offline",
            _ago(view.last_seen),
            view.profile or "-",
            _pairs(view.labels),
            _models(view) or "-",
        )
        for view in views
    ]
    return table(("thing", "", "last seen", "profile", "labels", "models"), rows)


def device(detail: DeviceDetail) -> str:
    """One device: itself, its models, its last events."""
    view = detail.device
    agent = view.agent
    lines = [
        f"{view.thing}: {'online' if view.online else 'offline'}, seen {_ago(view.last_seen)}",
        f"profile {view.profile or 'unknown'}, agent {agent.version or 'unknown'}, "
        f"memory {human_bytes(agent.memory) if agent.memory else 'unknown'}",
        f"labels  {_pairs(view.labels)}",
    ]
    for name in sorted(view.desired.keys() | view.reported.keys()):
        lines += ["", *_model_lines(name, view.desired.get(name), view.reported.get(name))]
    if detail.history:
        lines += ["", audit(detail.history)]
    return "\n".join(lines)


def rollouts(views: Iterable[RolloutView]) -> str:
    """A table of rollouts."""
    rows = [
        (
            str(view.id), view.plan.model, view.plan.version, view.status,
            f"{view.stage}/{view.stages}", f"{view.answers.get('done', 0)}/{view.devices}",
            _ago(view.created_at), view.by or "-", view.note,
        )
        for view in views
    ]  # fmt: skip
    header = ("id", "model", "version", "status", "stage", "done", "begun", "by", "")
    return table(header, rows)


def rollout(detail: RolloutDetail) -> str:
    """One rollout with its devices."""
    plan = detail.rollout.plan
    rows = [
        (
            member.thing, str(member.stage + 1), member.wish, member.answer,
            member.before.version if member.before else "-", member.error,
        )
        for member in detail.members
    ]  # fmt: skip
    canary = f", canary {plan.canary} %" if plan.canary else ""
    kept = ", stays in force" if plan.keep else ""
    return "\n".join(
        (
            line(detail.rollout),
            f"{plan.ref} ({plan.digest})",
            f"to {plan.selector}, stages {plan.stages}{canary}{kept}",
            "",
            table(("thing", "stage", "asked for", "answer", "had", "error"), rows),
        )
    )


def line(view: RolloutView) -> str:
    """How a rollout stands, in one line."""
    answers = ", ".join(f"{count} {answer}" for answer, count in view.answers.items())
    what = f"rollout {view.id}: {view.plan.model} {view.plan.version} {view.status}"
    note = f": {view.note}" if view.note else ""
    return f"{what}, stage {view.stage}/{view.stages} ({answers}){note}"


def deployment(made: Deployment) -> str:
    """What a deployment does, or would do."""
    plan = made.plan
    number = "dry run" if made.rollout is None else f"rollout {made.rollout}"
    sizes = [len(stage) for stage in made.stages]
    stages = f", in stages of {', '.join(map(str, sizes))}" if len(sizes) > 1 else ""
    devices = f"{sum(sizes)} device{'s' if sum(sizes) != 1 else ''}"
    lines = [f"{number}: {plan.model} {plan.version} to {devices}{stages}"]
    if made.rollout is None:
        for position, stage in enumerate(made.stages, 1):
            lines.append(f"stage {position}: {' '.join(stage)}")
    return "\n".join(lines)


def audit(entries: Iterable[AuditEntry]) -> str:
    """A table of what happened."""
    rows = []
    for entry in entries:
        event = entry.event
        subject = f"rollout {event.rollout}" if event.rollout else ""
        rows.append(
            (
                f"#{entry.id}",
                _moment(entry.at),
                event.kind,
                " ".join(filter(None, (subject, event.thing))),
                event.by,
                event.text + _happened(entry),
            )
        )
    return table(("", "time", "event", "of", "by", ""), rows)


def _happened(entry: AuditEntry) -> str:
    """When it happened by the device's clock, where that is not when it was told."""
    moment = entry.event.device_time
    if moment is None or abs(moment - entry.at) < _PROMPT:
        return ""
    return f" (by the device's clock {_moment(moment)})"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")[:19]


def _model_lines(
    name: str, desired: DesiredModel | None, reported: ReportedModel | None
) -> Iterable[str]:
    yield f"{name}: {_model(reported, desired) if reported else 'nothing reported'}"
    if desired is not None:
        canary = desired.canary
        trial = f", {canary.percent} % of requests to {canary.version}" if canary else ""
        yield f"  meant to run {desired.version}{trial}"
    if reported is None:
        return
    if reported.error:
        yield f"  error: {reported.error}"
    if reported.health and reported.health.requests:
        yield f"  {_health(reported.health)}"
    if reported.canary:
        yield f"  on trial {reported.canary.version} {reported.canary.status}"
        if reported.canary.error:
            yield f"    error: {reported.canary.error}"
        if reported.canary.health and reported.canary.health.requests:
            yield f"    {_health(reported.canary.health)}"


def _models(view: DeviceView) -> str:
    return ", ".join(
        f"{name} {_model(reported, view.desired.get(name))}"
        for name, reported in view.reported.items()
    )


def _model(reported: ReportedModel, desired: DesiredModel | None) -> str:
    """What serves, and what has become of another version that is desired or on trial."""
    if desired is None:
        return f"{reported.version or 'none'} {reported.status}"
    parts = [f"{reported.version} running"] if reported.digest else []
    if reported.digest != desired.digest:
        progress = f" {reported.progress:.0%}" if reported.progress is not None else ""
        told = reported.wanted == desired.digest
        parts.append(f"{desired.version} {reported.status if told else 'asked for'}{progress}")
    if reported.canary and reported.canary.status == "running":
        parts.append(f"{reported.canary.version} on trial")
    return " + ".join(parts)


def _health(health: Health) -> str:
    parts = [f"{health.requests} requests, {health.errors} failed"]
    if health.p95_ms is not None:
        parts.append(f"p95 {health.p95_ms:.3g} ms")
    if health.drift is not None:
        parts.append(f"drift {health.drift:.2f}")
    return ", ".join(parts)


def _pairs(labels: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in labels.items()) or "-"


def _ago(moment: float | None) -> str:
    """How long ago, in the largest unit that it fills."""
    if moment is None:
        return "never"
    seconds = max(0.0, time.time() - moment)
    size, unit = next(((s, u) for s, u in _UNITS if seconds >= s), (1, "s"))
    return f"{seconds / size:.0f} {unit} ago"
