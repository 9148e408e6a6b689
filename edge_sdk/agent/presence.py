"""Signs of life: a birth at each connection, a heartbeat, and a will that the broker keeps."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from edge_sdk.shadow import models
from edge_sdk.shadow.topics import ROOTS
from edge_sdk.transport.link import Link, Message


class Presence:
    """Says that this device is there.

    Args:
        thing: Its name.
        interval: Seconds between heartbeats.
        clock: Seconds, monotonic.
        source: Of randomness.
    """

    def __init__(
        self, thing: str, interval: float, *, clock: Callable[[], float], source: random.Random
    ) -> None:
        self._topic = f"{ROOTS[0]}/{thing}/presence"
        self._interval = interval
        self._clock = clock
        self._random = source
        self._session = ""
        self._next = 0.0

    def will(self) -> Message:
        """What the broker says when the connection that is about to be made breaks off."""
        self._session = f"{self._random.getrandbits(32):08x}"
        return self._message(online=False)

    def farewell(self) -> Message:
        """What is said before leaving for good."""
        return self._message(online=False)

    def connection_changed(self, connected: bool) -> None:
        """Makes the birth of a new connection due at once."""
        if connected:
            self._next = 0.0

    def attend(self, link: Link) -> None:
        """Publishes a sign of life where one is due."""
        now = self._clock()
        # Retained: one that comes after the late will of an older connection outlives it.
        if now >= self._next and link.publish(self._message(online=True)):
            self._next = now + self._interval

    def due(self, link: Link) -> float | None:
        """When the next one is due, by the clock; ``None`` while there is no connection."""
        return self._next if link.connected else None

    def _message(self, *, online: bool) -> Message:
        said = models.Presence(online=online, session=self._session, interval=self._interval)
        return Message(self._topic, msgspec.json.encode(said), retain=True)
