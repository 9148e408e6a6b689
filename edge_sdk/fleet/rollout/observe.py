"""What each device of a rollout has come to, as its report shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from edge_sdk.fleet.rollout.device import Device
from edge_sdk.fleet.rollout.state import Answer, Member, Plan, Rollout
from edge_sdk.shadow.models import Health, ReportedModel

_NO_REPORT = ReportedModel()
_NOT_RUN = ("failed", "rolled_back")


def observe(rollout: Rollout, devices: Mapping[str, Device], now: float) -> Rollout:
    """The rollout with every member's answer as its device shows it now."""
    members = tuple(
        _observed(member, devices.get(member.thing) or Device(thing=member.thing), rollout, now)
        if member.written
        else member
        for member in rollout.members
    )
    changed = any(new is not old for new, old in zip(members, rollout.members, strict=True))
    return msgspec.structs.replace(rollout, members=members) if changed else rollout


def _observed(member: Member, device: Device, rollout: Rollout, now: float) -> Member:
    report = device.models.get(rollout.plan.model, _NO_REPORT)
    answer, error = _answer(member, report, rollout.plan.digest)
    if member.wish == "back":
        error = member.error  # why it was taken back
    if answer == "done" and member.steady and not device.online:
        answer = "gone"
    seen = member.seen or device.online
    trial = report.canary.status if report.canary else ""
    sign = f"{answer} {seen} {report.status} {trial} {report.progress}"
    since = member.since if sign == member.sign else now
    if now - since >= rollout.plan.gates.max_wait_s and answer in ("open", "gone"):
        answer = "lost" if seen else "absent"
        error = error or (_silence(device, report, rollout.plan) if seen else "")
    if (answer, error, seen, sign) == (member.answer, member.error, member.seen, member.sign):
        return member
    return msgspec.structs.replace(
        member, answer=answer, error=error, seen=seen, sign=sign, since=since
    )


def _silence(device: Device, report: ReportedModel, plan: Plan) -> str:
    """What to say of a device that was reached and has not got on since."""
    waited = f"{'no progress' if device.online else 'offline'} for {plan.gates.max_wait_s:g} s"
    canary = report.canary
    error = canary.error if canary and canary.digest == plan.digest else None
    if report.wanted == plan.digest:
        error = report.error
    return f"{waited}: {error}" if error else waited


def _answer(member: Member, report: ReportedModel, digest: str) -> tuple[Answer, str]:
    """What a report says to a wish: done, failed and why, or nothing yet."""
    if member.wish == "back":
        before = member.before
        if before is None:
            return ("open" if report.digest else "done"), ""
        if report.wanted == before.digest and report.status in _NOT_RUN:
            return "failed", ""
        left = before.digest == digest or not _has(report, digest)
        return ("done" if left and report.digest == before.digest else "open"), ""
    if report.digest == digest and report.status == "running":
        return "done", ""
    answers = report.generation >= member.generation  # and not an earlier wish for the same
    if member.wish == "trial":
        canary = report.canary
        if canary is None or canary.digest != digest or not answers:
            return "open", ""
        if canary.status in _NOT_RUN:
            return "failed", canary.error or canary.status
        return ("done" if canary.status == "running" else "open"), ""
    if answers and report.wanted == digest and report.status in _NOT_RUN:
        return "failed", report.error or report.status
    return "open", ""


def _has(report: ReportedModel, digest: str) -> bool:
    """Whether a device still has a version, alone or on trial."""
    canary = report.canary
    on_trial = canary is not None and canary.digest == digest and canary.status == "running"
    return report.digest == digest or on_trial


@dataclass(frozen=True)
class Tally:
    """The answers of the devices that were asked.

    Attributes:
        done: Run the version, or try it.
        failed: Those that failed or fell silent.
        pending: Have not answered, or have gone since.
        absent: Offline all along; they do not count.
    """

    done: tuple[Member, ...]
    failed: tuple[Member, ...]
    pending: tuple[Member, ...]
    absent: tuple[Member, ...]

    @property
    def judged(self) -> int:
        """How many devices count."""
        return len(self.done) + len(self.failed) + len(self.pending)


def tally(rollout: Rollout) -> Tally:
    """Sorts the devices that were asked by their answers."""
    sorted_: dict[str, list[Member]] = {}
    for member in rollout.members:
        if member.wish != "none":
            sorted_.setdefault(member.answer, []).append(member)

    def those(*answers: Answer) -> tuple[Member, ...]:
        return tuple(member for answer in answers for member in sorted_.get(answer, ()))

    return Tally(
        done=those("done"),
        failed=those("failed", "lost"),
        pending=those("open", "gone"),
        absent=those("absent"),
    )


def health(
    done: Iterable[Member], plan: Plan, devices: Mapping[str, Device]
) -> list[tuple[Health, Health | None]]:
    """Per device that runs or tries the version: its health, and that of the one before."""
    pairs = []
    for member in done:
        device = devices.get(member.thing)
        report = device.models.get(plan.model) if device else None
        if report is not None and report.digest == plan.digest:
            pairs.append((report.health, report.before))
        elif report is not None and report.canary is not None:
            pairs.append((report.canary.health, report.health))
    return [(new, old) for new, old in pairs if new is not None]
