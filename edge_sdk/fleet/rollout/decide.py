"""What comes next in a rollout.

::

              approval                 every step: ask devices -> they run it -> soak -> gates hold
    waiting ----------> running -----------------------------------------------> completed
       ^                  |  ^                                                       |
       '---- approve -----'  '--> paused                                             | by hand
                          |        |                                                 v
                          '--------'--- a gate breaks, or by hand ---> returning --> aborted,
                                                                                     rolled_back

A step asks the devices of one stage: with a canary first to try the version, then to have it.
It is passed pessimistically, as if all that have not answered were to fail, and broken off
optimistically, once those that did fail are too many; so a few stragglers hold up nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import msgspec

from edge_sdk.fleet.rollout.device import Device
from edge_sdk.fleet.rollout.events import Event
from edge_sdk.fleet.rollout.gates import breaches
from edge_sdk.fleet.rollout.observe import Tally, health, observe, tally
from edge_sdk.fleet.rollout.stages import Stages
from edge_sdk.fleet.rollout.state import ENDED, FAILED, Member, Plan, Rollout, named

Devices = Mapping[str, Device]
_MOST_CREDIT_S = 10.0


@dataclass(frozen=True)
class Decision:
    """A rollout's next state, and what happened on the way there.

    What its devices have to be told follows from the state: the members that are not
    ``written``.
    """

    rollout: Rollout
    events: tuple[Event, ...] = ()


def decide(rollout: Rollout, devices: Devices, now: float) -> Decision:
    """Takes a rollout as far as what devices report lets it.

    Args:
        rollout: As it was.
        devices: All that is known, by thing.
        now: Seconds since 1970.
    """
    if rollout.status in ENDED:
        return Decision(rollout)
    seen = observe(rollout, devices, now)
    if seen.status == "returning":
        return _returning(seen, now)
    counts = tally(seen)
    reasons = [*_failed(seen, counts), *_breaches(seen.plan, counts, devices)]
    if reasons:
        decision = go_back(seen, reasons[0], now, ends_as="aborted")
    elif seen.status == "running":
        decision = _forward(seen, counts, devices, now)
    else:
        decision = Decision(seen)
    return replace(decision, events=(*_failures(rollout, seen), *decision.events))


def _breaches(plan: Plan, counts: Tally, devices: Devices) -> Iterable[str]:
    return breaches(plan.gates, health(counts.done, plan, devices))


def go_back(
    rollout: Rollout, reason: str, now: float, *, ends_as: str, by: str = "fleet",
    only: Callable[[Member], bool] = lambda _: True,
) -> Decision:  # fmt: skip
    """Asks every device that was asked for the version to take what it had before.

    Args:
        rollout: The rollout.
        reason: Why, for people.
        now: Seconds since 1970.
        ends_as: ``aborted`` or ``rolled_back``.
        by: Who wants it.
        only: Leaves other devices as they are.
    """
    members = tuple(
        _asked(member, now, wish="back") if member.wish != "none" and only(member) else member
        for member in rollout.members
    )
    after = msgspec.structs.replace(
        rollout, members=members, status="returning", ends_as=ends_as, note=reason
    )  # fmt: skip
    return Decision(after, (event_of(after, f"rollout.{ends_as}", reason, by=by),))


def event_of(
    rollout: Rollout, kind: str, text: str, *, thing: str | None = None, by: str = "fleet"
) -> Event:
    """Something that happened in a rollout."""
    plan = rollout.plan
    return Event(
        kind=kind, text=text, rollout=rollout.id, thing=thing, model=plan.model,
        version=plan.version, by=by,
    )  # fmt: skip


def _failures(before: Rollout, after: Rollout) -> Iterable[Event]:
    """An event for every device that has failed since."""
    for old, new in zip(before.members, after.members, strict=True):
        if new.answer in FAILED and old.answer not in FAILED:
            yield event_of(after, "device.failed", new.error, thing=new.thing)


def _failed(rollout: Rollout, counts: Tally) -> Iterable[str]:
    gates = rollout.plan.gates
    answered = len(counts.done) + len(counts.failed)
    if answered < min(gates.min_devices, counts.judged) or not counts.failed:
        return
    worst = counts.failed[0]
    if len(counts.failed) / counts.judged > gates.max_failed:
        yield (
            f"failed on {len(counts.failed)} of {counts.judged} devices "
            f"(limit {gates.max_failed:.0%}); {worst.thing}: {worst.error}"
        )
    elif not (counts.done or counts.pending or counts.absent):
        yield f"runs on none of the devices that were asked; {worst.thing}: {worst.error}"


def _forward(rollout: Rollout, counts: Tally, devices: Devices, now: float) -> Decision:
    gates = rollout.plan.gates
    if rollout.stage >= 0:
        if _is_paced(rollout) and any(member.wish == "none" for member in rollout.members):
            return _at_pace(rollout, devices, now)
        if lacks := _lacks(rollout, counts):
            return Decision(msgspec.structs.replace(rollout, note=lacks, settled_at=None))
        settled_at = now if rollout.settled_at is None else rollout.settled_at
        rollout = msgspec.structs.replace(
            rollout, settled_at=settled_at, note=f"soaks for {gates.soak_s:g} s"
        )
        if now - settled_at < gates.soak_s:
            return Decision(rollout)
    return _next(rollout, counts, devices, now)


def _lacks(rollout: Rollout, counts: Tally) -> str:
    """What a step waits for; empty where it holds all that it must."""
    if rollout.unwritten():
        return "tells devices"
    gates = rollout.plan.gates
    able = counts.judged + len(counts.absent) - len(counts.failed)
    missing = max(1, min(gates.min_devices, able)) - len(counts.done)
    worst = len(counts.failed) + len(counts.pending)
    if counts.pending and (missing > 0 or worst / counts.judged > gates.max_failed):
        return f"waits for {named(m.thing for m in counts.pending)}"
    if missing > 0:
        return f"waits until {missing} more come online of {named(m.thing for m in counts.absent)}"
    return ""


def _next(rollout: Rollout, counts: Tally, devices: Devices, now: float) -> Decision:
    """The step after one that is passed: devices that tried it have it, others are asked."""
    promotes = rollout.phase == "trial"
    last = max((member.stage for member in rollout.members), default=0)
    if not promotes and rollout.stage == last:
        text = f"runs on {len(counts.done)} of {len(rollout.members)} devices"
        if counts.pending or counts.absent:
            text += f"; left to do so: {named(m.thing for m in (*counts.pending, *counts.absent))}"
        after = msgspec.structs.replace(rollout, status="completed", note=text, ended_at=now)
        return Decision(after, (event_of(after, "rollout.completed", text),))
    if rollout.plan.approve and rollout.stage >= 0 and not rollout.approved:
        text = "promotes the canary" if promotes else f"begins stage {rollout.stage + 2}"
        after = msgspec.structs.replace(rollout, status="waiting", note=f"{text} once approved")
        return Decision(after, (event_of(after, "rollout.waiting", after.note),))
    after = msgspec.structs.replace(
        rollout,
        stage=rollout.stage if promotes else rollout.stage + 1,
        phase="trial" if rollout.plan.canary and not promotes else "full",
        settled_at=None,
        approved=False,
        credit_at=now - 1 / (Stages.parse(rollout.plan.stages).rate or 1),
    )
    if _is_paced(after):
        return _at_pace(after, devices, now)
    those = {member.thing for member in after.members if member.stage == after.stage}
    return _ask(after, those, devices, now)


def _is_paced(rollout: Rollout) -> bool:
    return Stages.parse(rollout.plan.stages).rate is not None


def _at_pace(rollout: Rollout, devices: Devices, now: float) -> Decision:
    """Asks as many devices as the time since the last ones pays for, and the first at once."""
    rate = Stages.parse(rollout.plan.stages).rate or math.inf
    # What a server that was away did not ask is not made up for all at once.
    credit_at = max(rollout.credit_at, now - max(_MOST_CREDIT_S, 1 / rate))
    planned = [member.thing for member in rollout.members if member.wish == "none"]
    number = min(len(planned), math.floor((now - credit_at) * rate + 1e-6))
    after = msgspec.structs.replace(rollout, credit_at=credit_at + number / rate)
    return _ask(after, set(planned[:number]), devices, now) if number else Decision(after)


def _ask(rollout: Rollout, things: set[str], devices: Devices, now: float) -> Decision:
    members = tuple(
        asked_for(member, devices.get(member.thing), rollout, now)
        if member.thing in things
        else member
        for member in rollout.members
    )
    text = f"asks {named(m.thing for m in members if m.thing in things)}"
    after = msgspec.structs.replace(rollout, members=members, note=text)
    return Decision(after, (event_of(after, "rollout.stage", text),))


def asked_for(member: Member, device: Device | None, rollout: Rollout, now: float) -> Member:
    """A device that is to be asked for what the rollout is about to ask for."""
    device = device or Device(thing=member.thing)
    plan = rollout.plan
    # A device that tried the version keeps what it had before that.
    before = device.desired.get(plan.model) if member.wish == "none" else member.before
    tries = rollout.phase == "trial" and before is not None and before.digest != plan.digest
    return _asked(
        member, now, wish="trial" if tries else "full", before=before,
        generation=_generation(rollout, member, device), steady=device.online, error="",
    )  # fmt: skip


def _asked(member: Member, now: float, **changes: object) -> Member:
    return msgspec.structs.replace(
        member, written=False, answer="open", sign="", since=now, **changes
    )


def _generation(rollout: Rollout, member: Member, device: Device) -> int:
    """Above that of every wish before, so that what failed in an earlier rollout is tried again.

    What a device reports does not tell whether it failed: it has been taken back since.
    """
    if member.wish != "none":
        return member.generation
    report, desired = (known.get(rollout.plan.model) for known in (device.models, device.desired))
    return max([rollout.id, *(known.generation + 1 for known in (report, desired) if known)])


def _returning(rollout: Rollout, now: float) -> Decision:
    members = [member for member in rollout.members if member.wish == "back"]
    if any(member.answer == "open" for member in members):
        return Decision(rollout)
    back = sum(member.answer in ("done", "gone") for member in members)
    text = f"back on what they had: {back} of {len(members)} devices"
    after = msgspec.structs.replace(rollout, status=rollout.ends_as, ended_at=now)
    return Decision(after, (event_of(after, "rollout.returned", text),))
