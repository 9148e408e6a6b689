"""The content of the shadow named ``trials``: candidates that a device is asked to measure.

The workstation that converts a model asks by way of the cloud, the device answers with figures.
Nothing of a trial is installed, and none outlives the request.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edge_sdk.bundle.measurements import DeviceFigures
from edge_sdk.shadow.models import Wire

SHADOW = "trials"
"""Name of the shadow."""

Status = Literal["waiting", "measuring", "done", "failed"]


class TrialCandidate(Wire, frozen=True, kw_only=True):
    """One candidate.

    Attributes:
        ref: Where its bundle is: ``host[:port]/repository:tag``.
        digest: Of its bundle's image index.
    """

    ref: str
    digest: str


class Trial(Wire, frozen=True, kw_only=True):
    """``desired.trial``: what is to be measured.

    Attributes:
        id: Names the request.
        candidates: Name -> candidate.
        seconds: Time to measure each candidate for.
        threads: Threads of each session; 0 for as many as its profile says.
    """

    id: str
    candidates: dict[str, TrialCandidate]
    seconds: float = 3.0
    threads: int = 0


class TrialResult(Wire, frozen=True, kw_only=True):
    """``reported.trial``: how far a device is.

    Attributes:
        id: Of the request.
        status: How far it is.
        candidate: The one that is being measured.
        figures: Of those that are done.
        machine: What the device is, for people.
        engines: Engine -> version.
        error: Why the whole trial failed.
    """

    id: str
    status: Status
    candidate: str | None = None
    figures: dict[str, DeviceFigures] = msgspec.field(default_factory=dict)
    machine: str = ""
    engines: dict[str, str] = msgspec.field(default_factory=dict)
    error: str | None = None
