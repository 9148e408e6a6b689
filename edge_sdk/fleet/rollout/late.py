"""Rollouts that stay in force: devices that appear later get their version too. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from edge_sdk.fleet.rollout.decide import Decision, Devices, asked_for, event_of
from edge_sdk.fleet.rollout.layout import has_newer
from edge_sdk.fleet.rollout.selector import Selector
from edge_sdk.fleet.rollout.state import Member, Rollout

_AGAIN_S = 60.0  # a wish that does not arrive, or is taken away again, is not repeated sooner


def in_force(ended: Iterable[Rollout]) -> tuple[Rollout, ...]:
    """The rollouts that stay in force, the newest first.

    Of the completed ones of a model to a selector the last one counts, and only it.

    Args:
        ended: Rollouts that have ended, the newest first.
    """
    last: dict[tuple[str, str], Rollout] = {}
    for rollout in ended:
        if rollout.status == "completed":
            last.setdefault((rollout.plan.model, rollout.plan.selector), rollout)
    return tuple(rollout for rollout in last.values() if rollout.plan.keep)


def join(
    standing: Sequence[Rollout], active: Iterable[Rollout], devices: Devices, now: float
) -> Iterator[Decision]:
    """Asks devices of which nothing is asked for a model for the version that is in force.

    Args:
        standing: The rollouts that stay in force, the newest first, which goes before.
        active: Those under way: their devices are theirs.
        devices: All that is known, by thing.
        now: Seconds since 1970.
    """
    held = {(rollout.plan.model, m.thing) for rollout in active for m in rollout.members}
    for rollout in standing:
        held |= {(rollout.plan.model, m.thing) for m in rollout.members if now - m.since < _AGAIN_S}
    for rollout in standing:
        plan, selector = rollout.plan, Selector.parse(rollout.plan.selector)
        things = {
            device.thing
            for device in devices.values()
            if plan.model not in device.desired
            and (plan.model, device.thing) not in held
            and selector.matches(device)
            and (plan.allow_older or not has_newer(device, plan))
        }
        held |= {(plan.model, thing) for thing in things}
        if things:
            yield _joined(rollout, sorted(things), devices, now)


def _joined(rollout: Rollout, things: list[str], devices: Devices, now: float) -> Decision:
    stage = max((member.stage for member in rollout.members), default=0)
    members = {member.thing: member for member in rollout.members}
    for thing in things:
        asked = asked_for(Member(thing=thing, stage=stage), devices[thing], rollout, now)
        members[thing] = msgspec.structs.replace(asked, answer="late")
    after = msgspec.structs.replace(rollout, members=tuple(members.values()))
    text = "has appeared since, and is asked too"
    return Decision(
        after, tuple(event_of(after, "rollout.joined", text, thing=thing) for thing in things)
    )
