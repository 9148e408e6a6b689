"""The shadow algebra: a document and a request make a new document and replies.

The rules are those of AWS IoT's Device Shadow service; ``docs/shadow.md`` lists them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from edge_sdk.shadow import requests, sections
from edge_sdk.shadow.document import EMPTY, TOMBSTONE_S, Object, Section, Shadow
from edge_sdk.shadow.messages import Content, Deleted, Documents, Rejected, Sections, snapshot
from edge_sdk.shadow.requests import Call, Limits, Rejection, Request
from edge_sdk.shadow.topics import Suffix

_encode = msgspec.json.Encoder().encode
_LIMITS = Limits()
_NOTHING = Shadow(0, 0)


@dataclass(frozen=True)
class Reply:
    """One message to send.

    Attributes:
        suffix: Of the request's topic.
        payload: JSON.
        everyone: Whether it is for all who follow the shadow, under every root, or for who
            asked: it tells of a change that a device must hear of.
    """

    suffix: Suffix
    payload: bytes
    everyone: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a request.

    Attributes:
        shadow: To be stored; the very same object as before where nothing changed.
        replies: To be sent once it is stored.
    """

    shadow: Shadow | None
    replies: tuple[Reply, ...]


def apply(shadow: Shadow | None, request: Request, now: int, limits: Limits = _LIMITS) -> Outcome:
    """Applies a request to a shadow.

    Never raises, whatever the payload: a request that is refused changes nothing and has one
    reply, ``rejected``.

    Args:
        shadow: As stored; ``None`` where there never was one.
        request: What is asked.
        now: Seconds since the epoch.
        limits: What a shadow may hold.
    """
    call = requests.read(request, limits)
    if call.rejection:
        return Outcome(shadow, (_rejected(call.rejection, call.token, now),))
    if request.operation == "update":
        return _update(shadow, call, now, limits)
    if shadow is None or not shadow.exists:
        name = request.address.shadow or request.address.thing
        missing = Rejection(404, f"No shadow exists with name: '{name}'")
        return Outcome(shadow, (_rejected(missing, call.token, now),))
    if request.operation == "get":
        return Outcome(shadow, (_document(shadow, _echo(call.token), now),))
    deleted = Shadow(shadow.version, now, deleted_at=now)
    reply = Deleted(shadow.version, now, _echo(call.token))
    return Outcome(deleted, (Reply("accepted", _encode(reply), everyone=True),))


def reject(request: Request, rejection: Rejection, now: int, limits: Limits = _LIMITS) -> Reply:
    """The reply to a request that is refused for reasons of the service's own."""
    return _rejected(rejection, requests.read(request, limits).token, now)


def _update(shadow: Shadow | None, call: Call, now: int, limits: Limits) -> Outcome:
    before = _NOTHING
    if shadow and (shadow.deleted_at is None or now - shadow.deleted_at < TOMBSTONE_S):
        before = shadow
    expected = before.version if before.exists else 0
    if call.version is not None and call.version != expected:
        return Outcome(shadow, (_rejected(requests.VERSION_CONFLICT, call.token, now),))
    leaf = {"timestamp": now}
    if call.state is None:
        after = Shadow(before.version + 1, now)
    else:
        after = Shadow(
            before.version + 1,
            now,
            _merged(before.desired, call.state, "desired", leaf),
            _merged(before.reported, call.state, "reported", leaf),
        )
    if _size(after.desired) + _size(after.reported) > limits.state_bytes:
        return Outcome(shadow, (_rejected(requests.TOO_LARGE, call.token, now),))
    return Outcome(after, _replies(before, after, call, leaf))


def _merged(section: Section, state: Object, name: str, leaf: Object) -> Section:
    if name not in state:
        return section
    patch = state[name]
    if patch is None:
        return EMPTY
    return Section(
        sections.merge(section.state, patch),
        sections.restamp(section.metadata, patch, section.state, leaf),
    )


def _size(section: Section) -> int:
    return len(_encode(section.state)) if section.state else 0


def _replies(before: Shadow, after: Shadow, call: Call, leaf: Object) -> tuple[Reply, ...]:
    now, token = after.timestamp, _echo(call.token)
    echoed = {
        name: sections.stamp(patch, leaf)
        for name, patch in (call.state or {}).items()
        if patch is not None
    }
    accepted = Content(call.state, echoed, after.version, now, token)
    documents = Documents(snapshot(before), snapshot(after), now, token)
    # No delta says that something is not desired any more.
    wished = call.state is None or "desired" in call.state
    replies = [
        Reply("accepted", _encode(accepted), everyone=wished),
        Reply("documents", _encode(documents), everyone=True),
    ]
    delta = sections.delta(after.desired, after.reported.state)
    if delta.state:
        differing = Content(delta.state, delta.metadata, after.version, now, token)
        replies.insert(1, Reply("delta", _encode(differing), everyone=True))
    return tuple(replies)


def _document(shadow: Shadow, token: str | UnsetType, now: int) -> Reply:
    desired, reported = shadow.desired, shadow.reported
    delta = sections.delta(desired, reported.state)
    state: Any = Sections(desired.state, reported.state, delta.state)
    metadata = Sections(desired.metadata, reported.metadata)
    return Reply("accepted", _encode(Content(state, metadata, shadow.version, now, token)))


def _rejected(rejection: Rejection, token: str | None, now: int) -> Reply:
    content = Rejected(rejection.code, rejection.message, now, _echo(token))
    return Reply("rejected", _encode(content))


def _echo(token: str | None) -> str | UnsetType:
    return UNSET if token is None else token
