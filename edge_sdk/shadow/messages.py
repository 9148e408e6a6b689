"""The payloads that a shadow service sends, as they travel."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from edge_sdk.shadow.document import Object, Shadow


class Sections(msgspec.Struct, frozen=True, omit_defaults=True):
    """Sections of a state or of its metadata; empty ones are left out."""

    desired: Object = {}
    reported: Object = {}
    delta: Object = {}


class Content(msgspec.Struct, frozen=True, rename="camel"):
    """On ``get/accepted``, ``update/accepted`` and ``update/delta``.

    Attributes:
        state: The whole document, the fields of the request, or the difference.
        metadata: Time stamps in the same shape.
        version: Of the document.
        timestamp: Seconds since the epoch.
        client_token: Of the request.
    """

    state: Any
    metadata: Any
    version: int
    timestamp: int
    client_token: str | UnsetType = UNSET


class Deleted(msgspec.Struct, frozen=True, rename="camel"):
    """On ``delete/accepted``."""

    version: int
    timestamp: int
    client_token: str | UnsetType = UNSET


class Rejected(msgspec.Struct, frozen=True, rename="camel"):
    """On ``…/rejected``."""

    code: int
    message: str
    timestamp: int = 0
    client_token: str | UnsetType = UNSET


class Snapshot(msgspec.Struct, frozen=True):
    """A document before or after an update."""

    state: Sections
    metadata: Sections
    version: int


class Documents(msgspec.Struct, frozen=True, rename="camel"):
    """On ``update/documents``."""

    previous: Snapshot
    current: Snapshot
    timestamp: int
    client_token: str | UnsetType = UNSET


def snapshot(shadow: Shadow) -> Snapshot:
    """A document without its delta."""
    desired, reported = shadow.desired, shadow.reported
    return Snapshot(
        Sections(desired.state, reported.state),
        Sections(desired.metadata, reported.metadata),
        shadow.version,
    )
