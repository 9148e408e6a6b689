"""The content of the shadow named ``models``: what should run on a device, and what does.

The cloud writes :class:`Desired`, the agent writes :class:`Reported`; both are decoded
leniently, because the other side may be newer.
"""

from __future__ import annotations

from typing import Literal

import msgspec

SHADOW = "models"
"""Name of the shadow."""

Status = Literal[
    "absent", "downloading", "verifying", "preparing", "running", "failed", "rolled_back"
]
"""How far a device is with a version.

``failed``: the wanted version could not be installed, what ran before still does.
``rolled_back``: it ran, did not do well, and the device went back to what ran before.
"""


class Wire(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the structs in a shadow: absent fields are omitted, unknown ones ignored."""


class CanaryVersion(Wire, frozen=True, kw_only=True):
    """A second version beside the first, for some of the requests.

    Attributes:
        ref: Where it is, as in :class:`DesiredModel`.
        digest: Of its bundle's image index.
        version: Its version.
        percent: Share of requests that it answers, 1 to 99.
    """

    ref: str
    digest: str
    version: str
    percent: int


class DesiredModel(Wire, frozen=True, kw_only=True):
    """The version of one model that a device should run.

    Attributes:
        ref: Where the bundle is: ``host[:port]/repository:tag``.
        digest: Of the bundle's image index (or of its only manifest): what counts.
        version: The bundle's version, for people.
        canary: A version on trial beside it.
        allow_older: Whether it may be older than what is installed.
        generation: Raised to make a device try again what has failed.
    """

    ref: str
    digest: str
    version: str
    canary: CanaryVersion | None = None
    allow_older: bool = False
    generation: int = 0


class Desired(Wire, frozen=True, kw_only=True):
    """``state.desired`` of the shadow."""

    models: dict[str, DesiredModel] = {}


class Health(Wire, frozen=True, kw_only=True):
    """How a version did over the last window of requests.

    Attributes:
        requests: Requests in the window.
        errors: Those that failed through no fault of the caller.
        p50_ms: Median latency in milliseconds; of the first token for dialogue models.
        p95_ms: 95th percentile of the same.
        drift: Population stability index of its outputs against the version before; 0 is none.
        window_s: Length of the window in seconds.
        notes: Where the device differs from what the variant asks for: an engine that is being
            compiled, or could not be.
    """

    requests: int = 0
    errors: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    drift: float | None = None
    window_s: float = 0.0
    notes: tuple[str, ...] = ()


class ReportedCanary(Wire, frozen=True, kw_only=True):
    """What became of a version on trial."""

    version: str
    digest: str
    status: Status
    ref: str = ""
    percent: int | None = None
    error: str | None = None
    health: Health | None = None


class ReportedModel(Wire, frozen=True, kw_only=True):
    """What a device says of one model.

    All that can be desired is repeated, so that the shadow has no delta where all is done.

    Attributes:
        version: The version that serves; empty while none does.
        digest: Its bundle's digest; equal to the desired one where all is done.
        ref: Where it came from.
        status: How far the device is with the desired version.
        wanted: Digest of the desired version that ``status`` and ``error`` are about.
        generation: The ``generation`` of the desired version.
        allow_older: The ``allow_older`` of the desired version.
        progress: Share of the bytes that have come, 0 to 1, while downloading.
        fetched: Bytes that the last install had to fetch.
        error: Why it failed.
        health: How the serving version does.
        before: How the version before did, in its last window.
        canary: What became of the version on trial.
    """

    version: str = ""
    digest: str = ""
    ref: str = ""
    status: Status = "absent"
    wanted: str = ""
    generation: int = 0
    allow_older: bool = False
    progress: float | None = None
    fetched: int | None = None
    error: str | None = None
    health: Health | None = None
    before: Health | None = None
    canary: ReportedCanary | None = None


class ReportedAgent(Wire, frozen=True, kw_only=True):
    """What an agent says of itself.

    Attributes:
        version: Of this product.
        profile: Device profile that it chooses variants for.
        memory: Bytes in use by the agent with its models (PSS).
        uptime: Seconds, coarse: it is reported when something else is.
        labels: Labels for selectors, as configured on the device.
        trials: Whether it measures candidates, as the shadow ``trials`` asks for it.
    """

    version: str = ""
    profile: str = ""
    memory: int = 0
    uptime: int = 0
    labels: dict[str, str] = {}
    trials: bool = True


class Reported(Wire, frozen=True, kw_only=True):
    """``state.reported`` of the shadow."""

    models: dict[str, ReportedModel] = {}
    agent: ReportedAgent | None = None


class Presence(Wire, frozen=True, kw_only=True):
    """Retained on ``<root>/<thing>/presence``: birth, heartbeat, and the broker's will.

    Attributes:
        online: ``False`` in the will and in a farewell.
        session: Of one connection, so that a late will of an older one is told apart.
        interval: Seconds between heartbeats; silence for longer than that is absence.
    """

    online: bool
    session: str
    interval: float = 4.0
