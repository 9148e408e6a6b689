"""The content of the shadow named ``trials``: candidates that a device is asked to measure.

The workstation that converts a model asks by way of the cloud, the device answers with figures.
Nothing of a trial is installed, and none outlives the request.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_sdk.bundle.measurements import DeviceFigures
from edge_sdk.shadow.models import Wire

SHADOW = "trials"
"""Name of the shadow."""

MOST_CANDIDATES = 16
"""In one trial: what is asked and answered must fit into a shadow."""

Status = Literal["waiting", "measuring", "done", "failed"]
Seconds = Annotated[float, Meta(ge=0, le=600)]
Threads = Annotated[int, Meta(ge=0, le=1024)]


class TrialCandidate(Wire, frozen=True, kw_only=True):
    """One candidate.

    Attributes:
        name: By which its figures are reported.
        ref: Where its bundle is: ``host[:port]/repository:tag``.
        digest: Of its bundle's image index.
    """

    name: str
    ref: str
    digest: str


class Trial(Wire, frozen=True, kw_only=True):
    """``desired.trial``: what is to be measured.

    No field has a default: written over an older trial, nothing of that one is left.

    Attributes:
        id: Names the request.
        candidates: Each with a name of its own.
        seconds: Time to measure each candidate for.
        threads: Threads of each session; 0 for as many as its profile says.
    """

    id: str
    candidates: Annotated[tuple[TrialCandidate, ...], Meta(max_length=MOST_CANDIDATES)]
    seconds: Seconds
    threads: Threads


class TrialResult(Wire, frozen=True, kw_only=True):
    """``reported.trial``: how far a device is.

    Attributes:
        id: Of the request.
        status: How far it is.
        candidate: The one that is being fetched or measured.
        fetched_bytes: How much of it has come, while it is being fetched.
        figures: Of those that are done.
        machine: What the device is, for people.
        error: Why the whole trial failed.
        restarts: How often the agent ended while it measured, and began again.
    """

    id: str
    status: Status
    candidate: str | None = None
    fetched_bytes: int = 0
    figures: dict[str, DeviceFigures] = msgspec.field(default_factory=dict)
    machine: str = ""
    error: str | None = None
    restarts: int = 0
