"""A rollout as it is kept: what was asked for, how far it is, and each device's part in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from edge_sdk.fleet.rollout import stages
from edge_sdk.fleet.rollout.gates import Gates
from edge_sdk.fleet.rollout.selector import ALL
from edge_sdk.shadow.models import CanaryVersion, DesiredModel

_NAMED = 4

Status = Literal["running", "paused", "waiting", "returning", "completed", "aborted", "rolled_back"]
"""``waiting`` is for somebody's approval; ``returning`` takes devices back to what they had."""

ENDED = frozenset(("completed", "aborted", "rolled_back"))
"""Where nothing moves any more by itself."""

Wish = Literal["none", "trial", "full", "back"]
"""What a device is asked for: nothing yet, the version beside its own, the version, its own."""

Answer = Literal["planned", "open", "done", "gone", "failed", "lost", "absent", "late"]
"""What came of it.

``gone``: done, but offline since. ``lost``: reached, and silent for too long since.
``absent``: offline all along; it does what it is asked when it comes back. ``late``: has
appeared since the rollout was completed, and was asked too.
"""

FAILED = frozenset(("failed", "lost"))
"""Answers that count against a version."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody asked for.

    Attributes:
        model: Name of the model on the devices.
        ref: Where the bundle is: ``host[:port]/repository:tag``.
        digest: Of its image index.
        version: Its version.
        selector: Which devices.
        stages: How fast.
        gates: What the version must show.
        canary: Percent of a device's requests that the version answers at first, 1 to 99.
        approve: Whether each step after the first waits for somebody's word.
        allow_older: Whether it may replace a newer version.
        keep: Whether it stays in force for devices that appear once it is completed.
    """

    model: str
    ref: str
    digest: str
    version: str
    selector: str = ALL
    stages: str = stages.DEFAULT
    gates: Gates = Gates()
    canary: int | None = None
    approve: bool = False
    allow_older: bool = False
    keep: bool = False


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One device's part in a rollout.

    Attributes:
        thing: The device.
        stage: The stage in which it is asked, from 0.
        wish: What it is asked for.
        written: Whether its shadow says so already; no answer counts before.
        before: What it should run before it was asked; ``None`` for nothing.
        generation: Of the wish, above that of an earlier failure.
        steady: Whether it was online when it was asked.
        seen: Whether it was online at any time since.
        answer: What came of it.
        sign: What it last showed, and
        since: when that began, in seconds since 1970.
        error: Why it failed, also after it was taken back.
    """

    thing: str
    stage: int
    wish: Wish = "none"
    written: bool = False
    before: DesiredModel | None = None
    generation: int = 0
    steady: bool = False
    seen: bool = False
    answer: Answer = "planned"
    sign: str = ""
    since: float = 0.0
    error: str = ""


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout.

    Attributes:
        id: Its number.
        plan: What was asked for.
        by: Who asked.
        created_at: When, in seconds since 1970.
        members: Its devices, those of the first stage first.
        status: How it stands.
        note: Why it stands like that, for people.
        stage: The stage whose devices are being asked; -1 before the first.
        phase: Whether they try the version beside their own, or have it.
        settled_at: Since when the step holds all that it must.
        credit_at: Up to when devices were asked, at a steady pace.
        approved: Whether the next step may be taken without asking again.
        ends_as: What a rollout that is ``returning`` becomes.
        ended_at: When it ended.
    """

    id: int
    plan: Plan
    by: str
    created_at: float
    members: tuple[Member, ...]
    status: Status = "running"
    note: str = ""
    stage: int = -1
    phase: Literal["trial", "full"] = "full"
    settled_at: float | None = None
    credit_at: float = 0.0
    approved: bool = False
    ends_as: Literal["aborted", "rolled_back"] = "aborted"
    ended_at: float | None = None

    def unwritten(self) -> tuple[Member, ...]:
        """Devices whose shadows do not say yet what they are asked for."""
        return tuple(
            member
            for member in self.members
            if member.wish != "none" and not member.written and member.answer != "failed"
        )

    def with_replies(self, replies: Mapping[str, tuple[Wish, str]], now: float) -> Rollout:
        """The rollout once shadows were written to.

        Args:
            replies: Thing -> what was written, and why it was refused if it was; a wish
                that is a newer one meanwhile is still to be written.
            now: Seconds since 1970.
        """
        members = list(self.members)
        for position, member in enumerate(members):
            wish, refusal = replies.get(member.thing, ("none", ""))
            if wish == "none" or wish != member.wish or member.written:
                continue
            if refusal:
                error = f"its shadow could not be written: {refusal}"
                members[position] = msgspec.structs.replace(member, answer="failed", error=error)
            else:
                members[position] = msgspec.structs.replace(member, written=True, since=now)
        return msgspec.structs.replace(self, members=tuple(members))


def wanted(member: Member, plan: Plan) -> DesiredModel | None:
    """What a device that was asked should run; ``None`` removes the model from its list."""
    if member.wish == "back":
        # Back is always allowed, also where it leads to an older version.
        before = member.before
        return before and msgspec.structs.replace(before, allow_older=True)
    if member.wish == "trial" and member.before is not None:
        trial = CanaryVersion(
            ref=plan.ref, digest=plan.digest, version=plan.version, percent=plan.canary or 1
        )
        return msgspec.structs.replace(member.before, canary=trial, generation=member.generation)
    return DesiredModel(
        ref=plan.ref,
        digest=plan.digest,
        version=plan.version,
        allow_older=plan.allow_older,
        generation=member.generation,
    )


def shadow_update(model: str, desired: DesiredModel | None) -> bytes:
    """The update of the shadow ``models`` that makes a device want this, and nothing else."""
    # Updates merge: what the struct leaves out must be said to be gone.
    fields = desired and {
        name: getattr(desired, name) or None for name in DesiredModel.__struct_fields__
    }
    return msgspec.json.encode({"state": {"desired": {"models": {model: fields}}}})


def named(things: Iterable[str]) -> str:
    """Things for a sentence: the first few by name, the others by number."""
    known = list(things)
    more = len(known) - _NAMED
    return ", ".join(known[:_NAMED]) + (f" and {more} more" if more > 0 else "")
