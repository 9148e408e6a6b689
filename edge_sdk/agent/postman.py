"""Brings the outbox to the server: one batch at a time, until each is accepted.

A server that has never accepted anything may not know events at all, as AWS IoT Core does
not: such a one is sent one batch per connection and no more. One that has is asked again
after delays that grow.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from queue import Empty, SimpleQueue

import msgspec

from edge_sdk.agent.outbox import Outbox
from edge_sdk.shadow.events import Accepted, accepted_topic, events_topic
from edge_sdk.transport.backoff import Backoff
from edge_sdk.transport.link import Link, Message

log = logging.getLogger(__name__)

_SHORTEST, _LONGEST = 10.0, 3600.0  # seconds until a batch is sent again
_PATIENCE = 2.0  # seconds for an answer of a server that may give none


class Postman:
    """Sends what happened.

    Args:
        link: The connection; to be opened by the caller.
        thing: The device's name.
        outbox: What is to be sent.
        clock: Seconds, monotonic.
        source: Of randomness.
        wake: Called, on any thread, when there is something to :meth:`attend` to.
    """

    def __init__(
        self,
        link: Link,
        thing: str,
        outbox: Outbox,
        *,
        clock: Callable[[], float],
        source: random.Random,
        wake: Callable[[], None],
    ) -> None:
        self._link = link
        self._topic = events_topic(thing)
        self._outbox = outbox
        self._clock = clock
        self._random = source
        self._wake = wake
        self._inbox: SimpleQueue[Message | bool] = SimpleQueue()
        self._backoff = self._no_delay_yet()
        self._waits_for: int | None = None  # the last event under way
        self._sent_at = 0.0
        self._again_at = 0.0
        link.subscribe(accepted_topic(thing), self._put)

    def connection_changed(self, connected: bool) -> None:
        """Takes the link's word that it is connected, or not; on any thread."""
        self._put(connected)

    def attend(self) -> None:
        """Takes in answers, and sends what is to be sent."""
        while True:
            try:
                item = self._inbox.get_nowait()
            except Empty:
                break
            if isinstance(item, bool):
                self._waits_for = None
            else:
                self._answered(item.payload)
        now = self._clock()
        if not self._link.connected or (self._waits_for is not None and not self._overdue(now)):
            return
        batch = self._outbox.pending()
        if batch and self._link.publish(Message(self._topic, msgspec.json.encode(batch))):
            self._waits_for = batch.events[-1].seq
            self._sent_at, self._again_at = now, now + self._backoff.delay()

    def due(self) -> float | None:
        """When to attend though nothing comes, by the clock; ``None`` for never."""
        waits = self._waits_for is not None and self._outbox.heard and self._link.connected
        return self._again_at if waits else None

    @property
    def settled(self) -> bool:
        """Whether the server knows all, or seems to give no answers."""
        if self._waits_for is None:
            return self._outbox.pending() is None
        patience = _SHORTEST if self._outbox.heard else _PATIENCE
        return self._clock() - self._sent_at >= patience

    def end(self) -> None:
        """Notes that the agent ends in good order."""
        self._outbox.end()

    def _put(self, item: Message | bool) -> None:
        self._inbox.put(item)
        self._wake()

    def _overdue(self, now: float) -> bool:
        return self._outbox.heard and now >= self._again_at

    def _answered(self, payload: bytes) -> None:
        try:
            accepted = msgspec.json.decode(payload, type=Accepted)
        except msgspec.DecodeError as error:
            log.warning("what the server says of events is not understood: %s", error)
            return
        ours = self._outbox.accept(accepted)
        if ours and self._waits_for is not None and accepted.seq >= self._waits_for:
            self._waits_for = None
            self._backoff = self._no_delay_yet()

    def _no_delay_yet(self) -> Backoff:
        return Backoff(_SHORTEST, _LONGEST, self._random)
