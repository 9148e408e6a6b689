"""The watch over a version that has just begun to serve: local, so that it works offline. Pure."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edge_sdk.agent.plan import Verdict


class Gate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a new version is taken back without asking the cloud.

    Attributes:
        seconds: How long it is watched.
        min_requests: Fewer requests say nothing.
        max_error_rate: Share of requests that may fail through no fault of the caller.
    """

    seconds: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    min_requests: Annotated[int, msgspec.Meta(ge=1)] = 5
    max_error_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2


def judge(gate: Gate, requests: int, errors: int, elapsed: float) -> Verdict | None:
    """What to think of a version.

    Args:
        gate: The limits.
        requests: Requests since it began to serve.
        errors: Those that failed.
        elapsed: Seconds since it began to serve.

    Returns:
        ``None`` while it must be watched on.
    """
    if requests >= gate.min_requests and errors > gate.max_error_rate * requests:
        return "bad"
    return "good" if elapsed >= gate.seconds else None
