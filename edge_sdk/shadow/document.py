"""One shadow as it is kept: two sections of JSON, when each leaf was set, and a version.

Values are shared, never changed: an update makes new objects along the paths that it touches
and keeps the rest.
"""

from __future__ import annotations

from typing import Any

import msgspec

Object = dict[str, Any]
"""A decoded JSON object."""

TOMBSTONE_S = 48 * 3600
"""For how long a deleted shadow's version is remembered, in seconds."""


class Section(msgspec.Struct, frozen=True, omit_defaults=True):
    """``desired`` or ``reported``; empty and absent are the same.

    Attributes:
        state: What was written.
        metadata: The same shape, with ``{"timestamp": seconds}`` in place of each leaf.
    """

    state: Object = {}
    metadata: Object = {}


EMPTY = Section()


class Shadow(msgspec.Struct, frozen=True, omit_defaults=True):
    """A shadow, or what is remembered of a deleted one.

    Attributes:
        version: Number of accepted updates.
        timestamp: When the last was accepted, in seconds since the epoch.
        desired: What the cloud wants.
        reported: What the device says.
        deleted_at: When it was deleted, for a deleted one.
    """

    version: int
    timestamp: int
    desired: Section = EMPTY
    reported: Section = EMPTY
    deleted_at: int | None = None

    @property
    def exists(self) -> bool:
        """Whether it is not deleted."""
        return self.deleted_at is None


_decoder = msgspec.json.Decoder(Shadow)


def encode(shadow: Shadow) -> bytes:
    """The bytes to store: JSON, because it holds integers of any size and people can read it."""
    return msgspec.json.encode(shadow)


def decode(stored: bytes) -> Shadow:
    """The shadow that :func:`encode` wrote."""
    return _decoder.decode(stored)
