"""What happens in a fleet."""

from __future__ import annotations

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, for the audit and for webhooks.

    Attributes:
        kind: ``rollout.started``, ``rollout.aborted``, ``device.offline`` …; what a device tells
            of itself begins with ``agent.``.
        text: What happened, for people.
        rollout: The rollout's number.
        thing: The device.
        model: Name of the model.
        version: Of the model.
        by: Who did it; ``fleet`` for the fleet itself.
        device_time: When, in seconds since 1970 by the device's own clock, where it tells.
    """

    kind: str
    text: str
    rollout: int | None = None
    thing: str | None = None
    model: str | None = None
    version: str | None = None
    by: str = "fleet"
    device_time: float | None = None


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it was written down.

    Attributes:
        id: Its number.
        at: When, in seconds since 1970.
        event: What.
    """

    id: int
    at: float
    event: Event
