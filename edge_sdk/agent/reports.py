"""What an agent reports: a function of what it remembers and of what serves. Pure.

State is not queued. What is to be reported is computed anew, compared with what the
cloud has, and the difference is sent; so after any outage one message says all that matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from edge_sdk.agent import plan
from edge_sdk.agent.journal import Journal, ModelEntry, Release
from edge_sdk.agent.plan import Serving, Step, Target
from edge_sdk.shadow.models import (
    Desired,
    Health,
    ReportedAgent,
    ReportedCanary,
    ReportedModel,
    Status,
)

_DURING: dict[type[Step], Status] = {
    plan.Fetch: "downloading",
    plan.Verify: "verifying",
    plan.Prepare: "preparing",
    plan.Swap: "preparing",
    plan.StartCanary: "preparing",
}
_PROGRESS = 20  # steps of progress that are reported


@dataclass(frozen=True)
class Now:
    """What is going on, as far as it is reported.

    Attributes:
        serving: Model -> what answers.
        step: The step under way.
        progress: Share of the download under way, 0 to 1.
        problems: Model -> why its download waits.
        unloadable: Bundle -> why this process could not load it.
        health: (Model, bundle) -> how it does.
    """

    serving: Mapping[str, Serving] = field(default_factory=dict)
    step: Step | None = None
    progress: float | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    unloadable: Mapping[str, str] = field(default_factory=dict)
    health: Mapping[tuple[str, str], Health] = field(default_factory=dict)


def reported(journal: Journal, now: Now) -> dict[str, ReportedModel]:
    """What to say of every model that is desired or serves."""
    desired = journal.desired or Desired()
    return {
        name: _model(name, journal.model(name), desired, now)
        for name in sorted(journal.models.keys() | desired.models.keys())
    }


def _model(name: str, entry: ModelEntry, desired: Desired, now: Now) -> ReportedModel:
    model = desired.models.get(name)
    serving = now.serving.get(name)
    digest = serving.digest if serving else ""
    health = now.health.get((name, digest))
    release = _release(entry, digest)
    said = ReportedModel(
        version=release.version,
        digest=digest,
        ref=release.ref,
        fetched=entry.fetched,
        health=health,
        before=entry.before,
    )
    if model is None:
        return msgspec.structs.replace(said, status="running" if digest else "absent")
    target, trial = plan.wanted(model), plan.on_trial(model)
    status, error = _status(name, target, digest == target.digest, entry, now)
    return msgspec.structs.replace(
        said,
        status=status,
        wanted=target.digest,
        generation=target.generation,
        allow_older=target.allow_older,
        # The same bundle may be wanted from elsewhere: it is here.
        ref=target.ref if digest == target.digest else release.ref,
        progress=_progress(target, now),
        error=error,
        canary=_canary(name, trial, entry, now) if trial else None,
    )


def _canary(name: str, target: Target, entry: ModelEntry, now: Now) -> ReportedCanary:
    serving = now.serving.get(name)
    runs = serving is not None and serving.canary == target.digest
    status, error = _status(name, target, runs, entry, now)
    health = now.health.get((name, target.digest))
    return ReportedCanary(
        version=target.version,
        digest=target.digest,
        status=status,
        ref=target.ref,
        percent=serving.percent if runs and serving else None,
        error=error,
        health=health,
    )


def _status(
    name: str, target: Target, runs: bool, entry: ModelEntry, now: Now
) -> tuple[Status, str | None]:
    if failure := entry.failure(target.digest, target.generation):
        return failure.status, failure.error
    if runs:
        return "running", None
    if problem := now.unloadable.get(target.digest):
        return "failed", problem
    step = now.step
    if isinstance(step, plan.ToInstall) and step.target == target:
        return _DURING[type(step)], None
    # Between two steps, or waiting for another model's turn or for the network.
    return "downloading", now.problems.get(name)


def _progress(target: Target, now: Now) -> float | None:
    if not isinstance(now.step, plan.Fetch) or now.step.target != target or now.progress is None:
        return None
    return int(now.progress * _PROGRESS) / _PROGRESS


def _release(entry: ModelEntry, digest: str) -> Release:
    """What the journal has of the bundle that serves."""
    known = (release for release in (entry.running, entry.previous) if release)
    unknown = Release(digest=digest, version="")
    return next((release for release in known if release.digest == digest), unknown)


def damped(shown: Health | None, current: Health | None) -> Health | None:
    """The health to report: what was reported, unless it has changed by more than noise.

    Args:
        shown: As reported last.
        current: As it is.
    """
    if shown is None or current is None or _differs(shown, current):
        return current
    return shown


def damped_agent(shown: ReportedAgent, current: ReportedAgent) -> ReportedAgent:
    """What to say of the agent itself: a tenth more memory is news, and twice the uptime."""
    memory = current.memory if _far(shown.memory, current.memory, 0.1) else shown.memory
    uptime = current.uptime if _far(shown.uptime, current.uptime, 0.5) else shown.uptime
    return msgspec.structs.replace(current, memory=memory, uptime=uptime)


def _differs(one: Health, other: Health) -> bool:
    return (
        _far(one.requests, other.requests, 0.2)
        or _far(one.errors, other.errors, 0.2)
        or _far(one.p50_ms, other.p50_ms, 0.1)
        or _far(one.p95_ms, other.p95_ms, 0.1)
        or abs((one.drift or 0.0) - (other.drift or 0.0)) > 0.02
        or (one.drift is None) != (other.drift is None)
        or one.notes != other.notes
    )


def _far(one: float | None, other: float | None, share: float) -> bool:
    if one is None or other is None:
        return one is not other
    return abs(one - other) > share * max(one, other)
