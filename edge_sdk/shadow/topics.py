"""Names of MQTT topics, and what a topic's name says.

::

    <root>/<thing>/shadow/<operation>[/<suffix>]                  the classic shadow
    <root>/<thing>/shadow/name/<shadow>/<operation>[/<suffix>]    a named one
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

ROOTS = ("edge/things", "$aws/things")
"""Roots served at once: of our agents, and of AWS IoT's clients."""

Operation = Literal["update", "get", "delete"]
OPERATIONS: tuple[Operation, ...] = ("update", "get", "delete")

Suffix = Literal["accepted", "rejected", "delta", "documents"]
# AWS IoT's names, and the dot of host names; one that begins with a dot could be a path.
_THING = re.compile(r"[A-Za-z0-9:_-][A-Za-z0-9:_.-]{0,127}")
_SHADOW = re.compile(r"[$A-Za-z0-9:_-][A-Za-z0-9:_.-]{0,63}")
_LONGEST = 4096  # characters of a request's topic; the reply's must fit into MQTT's 65,535 bytes
# What a device must hear of to hold a copy; the documents would say it once more.
_FOLLOWED: tuple[tuple[Operation, Suffix], ...] = (
    ("get", "accepted"),
    ("get", "rejected"),
    ("update", "accepted"),
    ("update", "rejected"),
    ("update", "delta"),
    ("delete", "accepted"),
)


@dataclass(frozen=True)
class Address:
    """One shadow as seen under one root.

    Attributes:
        root: Topic levels before the thing's name.
        thing: Name of the device.
        shadow: Name of the shadow; empty for the classic one.
    """

    root: str
    thing: str
    shadow: str = ""

    @property
    def prefix(self) -> str:
        """Topic levels before the operation."""
        base = f"{self.root}/{self.thing}/shadow"
        return f"{base}/name/{self.shadow}" if self.shadow else base


def valid_thing(name: str) -> bool:
    """Whether a device may have this name: up to 128 letters, digits and ``: _ - .``."""
    return _THING.fullmatch(name) is not None


def valid_shadow(name: str) -> bool:
    """Whether a shadow may have this name: empty, or up to 64 of a device's and ``$``."""
    return not name or _SHADOW.fullmatch(name) is not None


def parse(topic: str, roots: tuple[str, ...] = ROOTS) -> tuple[Address, Operation] | None:
    """The request that a topic stands for.

    Names are taken as they are, so that a wrong one can be answered.

    Returns:
        The shadow and what to do with it; ``None`` for any other topic, and for one so long
        that it cannot be answered.
    """
    if len(topic) > _LONGEST:
        return None
    for root in roots:
        if topic.startswith(root) and topic[len(root) : len(root) + 1] == "/":
            levels = topic[len(root) + 1 :].split("/")
            if levels[-1] not in OPERATIONS or levels[1:2] != ["shadow"] or not levels[0]:
                continue
            operation = levels[-1]
            if len(levels) == 3:
                return Address(root, levels[0]), operation
            if len(levels) == 5 and levels[2] == "name" and levels[3]:
                return Address(root, levels[0], levels[3]), operation
    return None


def request(address: Address, operation: Operation) -> str:
    """The topic that a request is sent on."""
    return f"{address.prefix}/{operation}"


def reply(address: Address, operation: Operation, suffix: Suffix) -> str:
    """The topic that a reply is sent on."""
    return f"{address.prefix}/{operation}/{suffix}"


def requests(root: str) -> tuple[str, ...]:
    """Filters of a service: every request under a root, and none of its own replies."""
    shadows = (f"{root}/+/shadow", f"{root}/+/shadow/name/+")
    return tuple(f"{shadow}/{operation}" for shadow in shadows for operation in OPERATIONS)


def for_thing(address: Address) -> dict[str, tuple[Operation, Suffix]]:
    """What a device subscribes to, and what comes on each topic."""
    return {reply(address, *followed): followed for followed in _FOLLOWED}
