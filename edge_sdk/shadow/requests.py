"""What a client asks of a shadow: reading a request, and refusing it.

Messages and codes are those of AWS IoT's Device Shadow service.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from edge_sdk.shadow.document import Object
from edge_sdk.shadow.topics import Address, Operation, valid_shadow, valid_thing


@dataclass(frozen=True)
class Limits:
    """What a shadow may hold.

    Attributes:
        state_bytes: Size of ``desired`` and ``reported`` together, as JSON without spaces.
        levels: Depth of ``desired`` and of ``reported``; the section itself is the first.
        token_bytes: Length of a client token.
    """

    state_bytes: int = 8192
    levels: int = 6
    token_bytes: int = 64


@dataclass(frozen=True)
class Request:
    """One request as it came.

    Attributes:
        address: The shadow.
        operation: What to do with it.
        payload: Any bytes.
    """

    address: Address
    operation: Operation
    payload: bytes = b""


@dataclass(frozen=True)
class Rejection:
    """Why a request is refused.

    Attributes:
        code: As in HTTP.
        message: For people.
    """

    code: int
    message: str


INVALID_JSON = Rejection(400, "Invalid JSON")
NO_STATE = Rejection(400, "Missing required node: state")
INVALID_NODE = Rejection(400, "State contains an invalid node")
VERSION_CONFLICT = Rejection(409, "Version conflict")
TOO_LARGE = Rejection(413, "The payload exceeds the maximum size allowed")
NOT_UTF8 = Rejection(415, "Unsupported documented encoding; supported encoding is UTF-8")
TOO_MANY_REQUESTS = Rejection(429, "Too many requests in flight for this thing")
INTERNAL_FAILURE = Rejection(500, "Internal service failure")


@dataclass(frozen=True)
class Call:
    """A request that was read.

    Attributes:
        token: Echoed in every reply.
        rejection: Why it is refused; the rest is then not to be used.
        version: The version it is meant for.
        state: What to merge; ``None`` clears both sections.
    """

    token: str | None = None
    rejection: Rejection | None = None
    version: int | None = None
    state: Object | None = None


_decoder = msgspec.json.Decoder()


def read(request: Request, limits: Limits) -> Call:
    """Reads a request; no payload makes it raise."""
    address, payload = request.address, request.payload
    body = _body(payload, limits) if payload or request.operation == "update" else {}
    if isinstance(body, Rejection):
        return Call(rejection=body)
    token = body.get("clientToken")
    if token is not None and not isinstance(token, str):
        return Call(rejection=Rejection(400, "Invalid clientToken"))
    rejection = None
    if token is not None and len(token.encode()) > limits.token_bytes:
        rejection = Rejection(400, "Invalid clientToken")
    elif not valid_thing(address.thing):
        rejection = Rejection(400, "Invalid thingName")
    elif not valid_shadow(address.shadow):
        rejection = Rejection(400, "Invalid shadowName")
    elif request.operation == "update":
        rejection = _fault(body, limits)
    if rejection:
        return Call(token, rejection)
    return Call(token, None, body.get("version"), body.get("state"))


def _body(payload: bytes, limits: Limits) -> Object | Rejection:
    try:
        body = _decoder.decode(payload)
    except RecursionError:
        return _too_deep(limits)
    except (msgspec.DecodeError, ValueError):  # wrong JSON, wrong UTF-8, endless digits
        return INVALID_JSON if _is_utf8(payload) else NOT_UTF8
    return body if isinstance(body, dict) else INVALID_JSON


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _fault(body: Object, limits: Limits) -> Rejection | None:
    """What is wrong with an update."""
    version = body.get("version")
    if version is not None and (type(version) is not int or version < 0):
        return Rejection(400, "Invalid version")
    if "state" not in body:
        return NO_STATE
    state = body["state"]
    if state is None:
        return None
    if not isinstance(state, dict):
        return Rejection(400, "State node must be an object")
    for name, section in state.items():
        if name not in ("desired", "reported"):
            return INVALID_NODE
        if isinstance(section, dict):
            if fault := _bad_value(section, limits.levels, limits, True):
                return fault
        elif section is not None:
            return Rejection(400, f"{name.capitalize()} node must be an object")
    return None


def _bad_value(
    value: Object | list[Any], levels: int, limits: Limits, deletes: bool
) -> Rejection | None:
    """What is wrong in an object or array that may be so many levels deep.

    Args:
        value: The object or array.
        levels: How deep it may be.
        limits: For the message.
        deletes: Whether ``null`` means a deletion here; within an array it means nothing.
    """
    if levels == 0:
        return _too_deep(limits)
    if isinstance(value, dict):
        children: Any = value.values()
    else:
        children, deletes = value, False
    for child in children:
        if isinstance(child, (dict, list)):
            if fault := _bad_value(child, levels - 1, limits, deletes):
                return fault
        elif child is None and not deletes:
            return INVALID_NODE
    return None


def _too_deep(limits: Limits) -> Rejection:
    return Rejection(400, f"JSON contains too many levels of nesting; maximum is {limits.levels}")
