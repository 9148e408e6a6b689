"""Time in which no device can be heard: it counts neither against one nor for a version. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from edge_sdk.fleet.rollout.device import Device
from edge_sdk.fleet.rollout.state import ENDED, Rollout


def extended(rollout: Rollout, lost: float, now: float) -> Rollout:
    """The rollout once devices are heard again: patience and soak go on where they were.

    Args:
        rollout: As it was.
        lost: Seconds in which none was heard.
        now: Seconds since 1970; nothing began later.
    """
    if rollout.status in ENDED or lost <= 0:
        return rollout
    members = tuple(
        msgspec.structs.replace(member, since=min(now, member.since + lost))
        if member.wish != "none"
        else member
        for member in rollout.members
    )
    settled_at = rollout.settled_at
    if settled_at is not None:
        settled_at = min(now, settled_at + lost)
    return msgspec.structs.replace(rollout, members=members, settled_at=settled_at)


def last_heard(rollouts: Iterable[Rollout], devices: Iterable[Device], now: float) -> float:
    """When a server that has just begun was last at work, as far as what it kept tells."""
    signs = [device.last_seen for device in devices if device.last_seen is not None]
    for rollout in rollouts:
        signs.append(rollout.created_at)
        signs += [member.since for member in rollout.members]
    return min(now, max(signs, default=now))
