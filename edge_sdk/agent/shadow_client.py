"""The agent's side of its shadow: what is desired comes in by version, reports go out.

Everything happens on the agent's own thread; the link's only puts messages on the queue.
One report is under way at a time. What is not answered is asked again, after a delay that
grows and is drawn at random, so that a service which comes back is not stampeded.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import msgspec

from edge_sdk.shadow import sections
from edge_sdk.shadow.models import DesiredModel
from edge_sdk.shadow.requests import Rejection
from edge_sdk.shadow.topics import Address, for_thing, request
from edge_sdk.shadow.view import View, take
from edge_sdk.transport.backoff import Backoff
from edge_sdk.transport.link import Link, Message

log = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
"""A request that is not answered by then is taken for lost."""


@dataclass(frozen=True)
class Wish:
    """What is desired.

    Attributes:
        models: By name.
        unreadable: Name -> what is wrong with a model that is not written as one.
    """

    models: Mapping[str, DesiredModel]
    unreadable: Mapping[str, str]


def read_wish(models: Mapping[str, Any]) -> Wish:
    """Reads ``desired.models``, each model for itself: people write shadows by hand, too."""
    read: dict[str, DesiredModel] = {}
    unreadable: dict[str, str] = {}
    for name, model in models.items():
        try:
            read[name] = msgspec.convert(model, DesiredModel)
        except msgspec.ValidationError as error:  # noqa: PERF203 - each for itself
            log.error("what is desired of %s cannot be read: %s", name, error)
            unreadable[name] = f"what is desired cannot be read: {error}"
    return Wish(read, unreadable)


@dataclass
class _Asked:
    """A request that waits for its answer."""

    token: str
    deadline: float


class ShadowClient:
    """Keeps a copy of a shadow, and what is reported in it up to date.

    Args:
        link: The connection; to be opened by the caller.
        address: The shadow.
        clock: Seconds, monotonic.
        source: Of randomness.
        wake: Called, on any thread, when there is something to :meth:`take`.
        shortest: Seconds between two reports at least.
    """

    def __init__(
        self,
        link: Link,
        address: Address,
        *,
        clock: Callable[[], float],
        source: random.Random,
        wake: Callable[[], None],
        shortest: float = 0.0,
    ) -> None:
        self._link = link
        self._address = address
        self._clock = clock
        self._random = source
        self._wake = wake
        self._inbox: SimpleQueue[Message | bool] = SimpleQueue()
        self._topics = for_thing(address)
        self._view = View()
        self._get: _Asked | None = None
        self._update: _Asked | None = None
        self._wants_get = False
        self._not_before = 0.0
        self._shortest = shortest
        self._report_at = 0.0
        self._held = False
        self._backoff = Backoff(source=source)
        for topic in self._topics:
            link.subscribe(topic, self._put)

    def connection_changed(self, connected: bool) -> None:
        """Takes the link's word that it is connected, or not; on any thread."""
        self._put(connected)

    def _put(self, item: Message | bool) -> None:
        self._inbox.put(item)
        self._wake()

    @property
    def current(self) -> bool:
        """Whether the copy follows the shadow."""
        return self._view.current and self._link.connected

    @property
    def reported(self) -> Mapping[str, Any]:
        """What the shadow says is reported, as far as is known."""
        return self._view.reported

    def take(self) -> Mapping[str, Any] | None:
        """Takes in what has come since.

        Returns:
            What is desired, where something has come that may have changed it.
        """
        news = False
        while True:
            try:
                item = self._inbox.get_nowait()
            except Empty:
                break
            if isinstance(item, bool):
                self._connection(item)
            else:
                news = self._message(item) or news
        return self._view.desired if news and self._view.current else None

    def due(self) -> float | None:
        """When something is to be done though nothing comes, by the clock; ``None`` for never."""
        if not self._link.connected:
            return None
        moments = [asked.deadline for asked in (self._get, self._update) if asked]
        if self._wants_get:
            moments.append(self._not_before)
        elif self._held:
            moments.append(max(self._not_before, self._report_at))
        return min(moments, default=None)

    def attend(self) -> None:
        """Asks what must be asked, again where no answer came."""
        now = self._clock()
        if not self._link.connected:
            return
        for asked in (self._get, self._update):
            if asked and now >= asked.deadline:
                log.warning("no answer from the shadow service within %g s", ANSWER_SECONDS)
                self._pause()
                self._wants_get = True
                self._get = self._update = None
        if self._wants_get and self._get is None and now >= self._not_before:
            self._get = self._send("get", {})
            self._wants_get = self._get is None

    def report(self, state: Mapping[str, Any]) -> bool:
        """Reports what differs from what the shadow has, where that is known.

        Args:
            state: Top-level keys of ``reported`` that are ours; others are left alone.

        Returns:
            Whether the shadow has it all.
        """
        self._held = False
        if not self.current or self._update is not None:
            return False
        ours = {key: value for key, value in self._view.reported.items() if key in state}
        patch = sections.patch(ours, state)
        if not patch:
            return True
        now = self._clock()
        if now < max(self._not_before, self._report_at):
            self._held = True
            return False
        self._update = self._send("update", {"state": {"reported": patch}})
        self._report_at = now + self._shortest
        return False

    def _send(self, operation: Any, body: dict[str, Any]) -> _Asked | None:
        token = f"{self._random.getrandbits(64):016x}"
        payload = msgspec.json.encode({**body, "clientToken": token})
        if not self._link.publish(Message(request(self._address, operation), payload)):
            return None
        return _Asked(token, self._clock() + ANSWER_SECONDS)

    def _connection(self, connected: bool) -> None:
        self._get = self._update = None
        self._view = self._view.reconnected()
        self._wants_get = connected
        self._not_before = 0.0

    def _message(self, message: Message) -> bool:
        """Takes in one message; whether desired may have changed."""
        before = self._view
        intake = take(before, *self._topics[message.topic], message.payload)
        self._view = intake.view
        self._wants_get = self._wants_get or (intake.ask and self._get is None)
        for asked in (self._get, self._update):
            if asked and intake.token == asked.token:
                self._answered(asked, intake.rejection)
        return not before.current or before.desired != self._view.desired

    def _answered(self, asked: _Asked, rejection: Rejection | None) -> None:
        if asked is self._get:
            self._get = None
        else:
            self._update = None
        if rejection is None:
            self._backoff = Backoff(source=self._random)
            return
        log.warning("the shadow service refuses: %d %s", rejection.code, rejection.message)
        self._wants_get = self._wants_get or not self._view.current
        self._pause()

    def _pause(self) -> None:
        self._not_before = self._clock() + self._backoff.delay()
