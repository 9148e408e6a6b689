"""An MQTT broker without sockets, for simulations and tests.

It delivers at once, in the order of publishing, on the thread that publishes; what handlers
publish meanwhile comes after. It keeps retained messages and publishes wills. Sessions end
with their connections, as those of :class:`~edge_sdk.transport.paho_link.PahoLink` do.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from edge_sdk.transport.link import Handler, Message
from edge_sdk.transport.topic_filter import check, matches


class MemoryBroker:
    """Connects links to each other.

    Attributes:
        running: Whether it lets links in; see :meth:`stop`.
        retained: Message by topic.
        published: Every message that came in, oldest first, where ``record`` is set.
    """

    def __init__(self, *, record: bool = False) -> None:
        self.running = True
        self.retained: dict[str, Message] = {}
        self.published: list[Message] = []
        self._record = record
        self._links: list[MemoryLink] = []
        self._waiting: deque[Callable[[], None]] = deque()
        self._delivering = False
        self._lock = threading.Lock()

    def publish(self, message: Message) -> None:
        """Delivers a message, as a client that holds no link would."""
        self.soon(lambda: self._deliver(message))

    def stop(self) -> None:
        """An outage: every link breaks off, and no will is published."""
        self.running = False
        for link in list(self._links):
            link.drop(will=False)

    def start(self) -> None:
        """The end of the outage: links come back, retained messages are still there."""
        self.running = True
        for link in list(self._links):
            link.restore()

    def soon(self, work: Callable[[], None]) -> None:
        """Does work after what is under way: one thing at a time, in order."""
        with self._lock:
            self._waiting.append(work)
            if self._delivering:
                return
            self._delivering = True
        while True:
            with self._lock:
                if not self._waiting:
                    self._delivering = False
                    return
                work = self._waiting.popleft()
            try:
                work()
            except BaseException:
                with self._lock:
                    self._delivering = False
                raise

    def join(self, link: MemoryLink) -> None:
        """Takes a link in, until it leaves for good."""
        self._links.append(link)

    def leave(self, link: MemoryLink) -> None:
        """Forgets a link."""
        self._links.remove(link)

    def _deliver(self, message: Message) -> None:
        if self._record:
            self.published.append(message)
        if message.retain and message.payload:
            self.retained[message.topic] = message
        elif message.retain:
            self.retained.pop(message.topic, None)
        for link in list(self._links):
            link.receive(Message(message.topic, message.payload, message.qos))


class MemoryLink:
    """A :class:`~edge_sdk.transport.link.Link` to a :class:`MemoryBroker`.

    Args:
        broker: The other end.
        will: Makes the message that the broker publishes when the link is cut; asked at
            every connection.
    """

    def __init__(self, broker: MemoryBroker, *, will: Callable[[], Message] | None = None) -> None:
        self._broker = broker
        self._make_will = will
        self._will: Message | None = None
        self._subscriptions: list[tuple[str, Handler]] = []
        self._on_change: Callable[[bool], None] | None = None
        self._connected = False
        self._mute = False

    @property
    def connected(self) -> bool:
        """Whether the broker is reached now; also while :meth:`mute`, which nobody notices."""
        return self._connected

    def open(self, on_change: Callable[[bool], None]) -> None:
        """Connects, if the broker runs."""
        self._on_change = on_change
        self._broker.join(self)
        self.restore()

    def subscribe(self, topic_filter: str, handler: Handler, qos: int = 1) -> None:
        """Hands every message that matches to the handler, retained ones at once."""
        subscription = (check(topic_filter), handler)
        self._subscriptions.append(subscription)
        if self._connected:
            self._broker.soon(lambda: self._send_retained(*subscription))

    def publish(self, message: Message) -> bool:
        """Hands a message to the broker, if there is a connection."""
        if self._connected and not self._mute:
            self._broker.publish(message)
        return self._connected

    def close(self, farewell: Message | None = None) -> None:
        """Says the farewell in place of the will and leaves."""
        if farewell is not None:
            self.publish(farewell)
        self.drop(will=False)
        self._broker.leave(self)

    def drop(self, *, will: bool = True) -> None:
        """Cuts the connection; the broker publishes the will unless told otherwise."""
        if not self._connected:
            return
        self._connected = self._mute = False
        if will and self._will is not None:
            self._broker.publish(self._will)
        self._tell(False)

    def mute(self) -> None:
        """Lets nothing through in either direction, unnoticed, until :meth:`drop`."""
        self._mute = True

    def restore(self) -> None:
        """Connects again after :meth:`drop`, if the broker runs."""
        if self._connected or not self._broker.running:
            return
        self._will = self._make_will() if self._make_will else None
        self._connected = True
        for subscription in list(self._subscriptions):
            self._broker.soon(lambda one=subscription: self._send_retained(*one))  # type: ignore[misc]
        self._tell(True)

    def receive(self, message: Message) -> None:
        """What the broker sends, to every handler that it matches."""
        if self._connected and not self._mute:
            for topic_filter, handler in list(self._subscriptions):
                if matches(topic_filter, message.topic):
                    handler(message)

    def _send_retained(self, topic_filter: str, handler: Handler) -> None:
        for topic, message in list(self._broker.retained.items()):
            if self._connected and not self._mute and matches(topic_filter, topic):
                handler(message)

    def _tell(self, connected: bool) -> None:
        on_change = self._on_change
        if on_change is not None:
            self._broker.soon(lambda: on_change(connected))
