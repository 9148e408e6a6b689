"""What a person may do with a rollout; each gives its next state or says why not."""

from __future__ import annotations

import msgspec

from edge_sdk.errors import FleetError
from edge_sdk.fleet.rollout.decide import Decision, Devices, event_of, go_back
from edge_sdk.fleet.rollout.state import ENDED, Member, Rollout, Status

_POSSIBLE: dict[str, tuple[Status, ...]] = {
    "pause": ("running", "waiting"),
    "resume": ("paused",),
    "approve": ("waiting",),
    "abort": ("running", "paused", "waiting"),
    "rollback": ("completed",),
}


def pause(rollout: Rollout, by: str) -> Decision:
    """Asks no further devices; a gate that breaks still ends the rollout.

    Raises:
        FleetError: It is not under way.
    """
    _require(rollout, "pause")
    after = msgspec.structs.replace(rollout, status="paused", note=f"paused by {by}")
    return Decision(after, (event_of(after, "rollout.paused", after.note, by=by),))


def resume(rollout: Rollout, by: str, now: float) -> Decision:
    """Goes on; the soak of the step begins again, and the time away is not made up for.

    Raises:
        FleetError: It is not paused.
    """
    _require(rollout, "resume")
    after = msgspec.structs.replace(
        rollout, status="running", note=f"resumed by {by}", settled_at=None, credit_at=now
    )
    return Decision(after, (event_of(after, "rollout.resumed", after.note, by=by),))


def approve(rollout: Rollout, by: str) -> Decision:
    """Lets it take the step that it waits before.

    Raises:
        FleetError: It does not wait.
    """
    _require(rollout, "approve")
    after = msgspec.structs.replace(
        rollout, status="running", note=f"approved by {by}", approved=True
    )
    return Decision(after, (event_of(after, "rollout.approved", after.note, by=by),))


def abort(rollout: Rollout, by: str, now: float) -> Decision:
    """Ends it and takes the devices back to what they had.

    Raises:
        FleetError: It has ended already.
    """
    _require(rollout, "abort")
    return go_back(rollout, f"aborted by {by}", now, ends_as="aborted", by=by)


def rollback(rollout: Rollout, devices: Devices, by: str, now: float) -> Decision:
    """Takes the devices of a completed rollout back, unless they were asked for something else.

    Raises:
        FleetError: It is not completed, or no device has its version any more.
    """
    _require(rollout, "rollback")

    def still(member: Member) -> bool:
        device = devices.get(member.thing)
        desired = device.desired.get(rollout.plan.model) if device else None
        return desired is not None and desired.digest == rollout.plan.digest

    if not any(still(member) for member in rollout.members):
        raise FleetError(
            f"none of its devices is meant to run {rollout.plan.version} any more",
            where=f"rollout {rollout.id}",
        )
    return go_back(rollout, f"rolled back by {by}", now, ends_as="rolled_back", by=by, only=still)


def _require(rollout: Rollout, action: str) -> None:
    if rollout.status not in _POSSIBLE[action]:
        others = [name for name, statuses in _POSSIBLE.items() if rollout.status in statuses]
        last = "deploy again" if rollout.status in ENDED else "wait until its devices are back"
        raise FleetError(
            f"is {rollout.status}: {action} does nothing for it",
            where=f"rollout {rollout.id}",
            remedy=f"what can be done: {', '.join(others)}" if others else last,
        )
