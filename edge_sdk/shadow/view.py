"""The copy of a shadow that a client holds, kept right by the messages that come.

``update/accepted`` carries what an accepted update wrote, deletions too, so that a client that
has them all needs no more. ``get`` is asked for at each connection and after a gap; what is
reported under another root is one::

    view = view.reconnected()                       # then publish a get
    intake = take(view, operation, suffix, payload)
    view = intake.view                              # if intake.ask: publish a get
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from edge_sdk.shadow import sections
from edge_sdk.shadow.document import Object
from edge_sdk.shadow.requests import Rejection
from edge_sdk.shadow.topics import Operation, Suffix


@dataclass(frozen=True)
class View:
    """A copy of a shadow.

    Attributes:
        version: The highest version heard of; 0 where there is no shadow.
        desired: ``state.desired``.
        reported: ``state.reported``.
        current: Whether the content is that of ``version``; not before the first ``get`` of a
            connection is answered.
    """

    version: int = 0
    desired: Object = field(default_factory=dict)
    reported: Object = field(default_factory=dict)
    current: bool = False

    def reconnected(self) -> View:
        """The view at the begin of a connection, when ``get`` is to be asked.

        The content stays, its version does not count any more: the service may have been
        restored from a backup, or the shadow deleted long ago and made again.
        """
        return replace(self, version=0, current=False)


@dataclass(frozen=True)
class Intake:
    """What a message changed.

    Attributes:
        view: The copy after it.
        ask: Whether to ask for ``get``, because something was missed.
        token: ``clientToken`` of the request that is answered, whoever made it.
        rejection: Why that request was refused.
    """

    view: View
    ask: bool = False
    token: str | None = None
    rejection: Rejection | None = None


class _Said(msgspec.Struct, frozen=True, rename="camel"):
    """What the payloads of all replies may have."""

    state: Any = None
    version: int = 0
    client_token: str | None = None
    code: int = 500
    message: str = ""


_decoder = msgspec.json.Decoder(_Said)


def take(view: View, operation: Operation, suffix: Suffix, payload: bytes) -> Intake:
    """Takes in a message of the service; never raises.

    Args:
        view: The copy before.
        operation: What was asked, by whomever.
        suffix: What came of it.
        payload: The message; one that cannot be read is a gap.
    """
    try:
        said = _decoder.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _missed(view, _Said())
    absent = operation == "get" and suffix == "rejected" and said.code == 404
    if suffix == "rejected" and not absent:
        return Intake(view, False, said.client_token, Rejection(said.code, said.message))
    if operation == "delete":
        # The content stays until it is sure that there is none: it may have been made again.
        return Intake(view.reconnected(), True, said.client_token)
    if suffix == "documents" or said.version < view.version:
        return _old(view, operation, said)
    if operation == "get":
        return _written(view, {}, said)
    if not view.current or view.version == 0 or said.version > view.version + 1:
        return _missed(view, said)
    if said.version == view.version:
        return Intake(view, False, said.client_token)
    if suffix == "delta":
        return _early(view, said)
    return _written(view, {"desired": view.desired, "reported": view.reported}, said)


def _old(view: View, operation: Operation, said: _Said) -> Intake:
    """Drops what is held already."""
    if operation == "get" and not view.current:
        # An answer from before what was heard of since; the next one counts in any case.
        return Intake(view.reconnected(), True, said.client_token)
    return Intake(view, False, said.client_token)


def _missed(view: View, said: _Said) -> Intake:
    """Asks for the document, once: until it comes, nothing else is of use."""
    version = max(view.version, said.version)
    return Intake(replace(view, version=version, current=False), view.current, said.client_token)


def _written(view: View, base: Object, said: _Said) -> Intake:
    """The view with what a document or an accepted update says, on top of ``base``."""
    new: Object = {}
    if isinstance(said.state, dict):
        new = sections.merge(base, said.state)
    elif said.state is not None:
        return _missed(view, said)
    desired, reported = new.get("desired", {}), new.get("reported", {})
    if not isinstance(desired, dict) or not isinstance(reported, dict):
        return _missed(view, said)
    return Intake(View(said.version, desired, reported, True), False, said.client_token)


def _early(view: View, said: _Said) -> Intake:
    """A delta ahead of its ``accepted``: the values hold, deletions are still to come."""
    if not isinstance(said.state, dict):
        return _missed(view, said)
    return Intake(replace(view, desired=sections.merge(view.desired, said.state)))
