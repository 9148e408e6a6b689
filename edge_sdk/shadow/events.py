"""What happens on a device, as its agent tells it: beside the shadow, which keeps one state.

An agent publishes a :class:`Batch` on ``edge/things/<thing>/events``. A fleet's server writes
it down and answers with :class:`Accepted`; only then does the agent forget it. A batch may
come twice, but every event has a number that is used once within its epoch.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from edge_sdk.shadow.models import Wire
from edge_sdk.shadow.topics import ROOTS

LARGEST_BATCH = 32 * 1024
"""Bytes of a message at most."""

Number = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
LATEST = float(2**33 - 1)
"""The last moment that can be told, in seconds since 1970: in the year 2242."""
Moment = Annotated[float, msgspec.Meta(ge=0, le=LATEST)]


class Happening(Wire, frozen=True, kw_only=True):
    """Something that happened.

    Attributes:
        kind: ``started``, ``installed``, ``failed``, ``rolled_back``, ``removed``,
            ``canary_started``, ``canary_ended`` or ``dropped``; newer agents may know others.
        model: The model, where it is about one.
        version: Its version.
        digest: Of that version's bundle.
        error: What went wrong.
        count: Of ``dropped``: events that were lost since the epoch began. Of ``started``: ends
            of the process in bad order since the last one that was told.
    """

    kind: str
    model: str = ""
    version: str = ""
    digest: str = ""
    error: str = ""
    count: Number = 0


class DeviceEvent(Happening, frozen=True, kw_only=True):
    """A happening with its place in the order of things.

    Attributes:
        seq: Counts up within an epoch; no number stands for two events.
        at: When, in seconds since 1970, by the device's own clock.
    """

    seq: Number
    at: Moment


class Batch(Wire, frozen=True, kw_only=True):
    """Events, oldest first.

    Attributes:
        epoch: Drawn at random when an agent begins with an empty store.
        events: At least one.
    """

    epoch: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{1,64}$")]
    events: Annotated[tuple[DeviceEvent, ...], msgspec.Meta(min_length=1)]


class Accepted(Wire, frozen=True, kw_only=True):
    """The server's answer: it has written down all events up to this one.

    Attributes:
        epoch: Of the batch.
        seq: Of its last event.
    """

    epoch: str
    seq: int


def events_topic(thing: str) -> str:
    """Where a device tells what happened; of ``+``, the filter for all devices."""
    return f"{ROOTS[0]}/{thing}/events"


def accepted_topic(thing: str) -> str:
    """Where a device hears what has been written down."""
    return f"{events_topic(thing)}/accepted"
