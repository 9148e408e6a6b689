"""What an agent needs of MQTT, whatever carries it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Message:
    """One application message.

    Attributes:
        topic: A topic name, without wildcards.
        payload: Bytes as they travel.
        qos: 0 (at most once) or 1 (at least once).
        retain: Whether the broker keeps it for later subscribers.
    """

    topic: str
    payload: bytes = b""
    qos: int = 1
    retain: bool = False


Handler = Callable[[Message], None]


class Link(Protocol):
    """A connection that comes back by itself; safe to call from several threads.

    Subscriptions outlive reconnects. Handlers run on the link's own thread and must not block.
    """

    @property
    def connected(self) -> bool:
        """Whether the broker is reached now."""
        ...

    def open(self, on_change: Callable[[bool], None]) -> None:
        """Connects in the background; tells every change of ``connected``."""
        ...

    def subscribe(self, topic_filter: str, handler: Handler, qos: int = 1) -> None:
        """Hands every message that matches to the handler, now and after reconnects."""
        ...

    def publish(self, message: Message) -> bool:
        """Hands a message to the broker.

        Returns:
            Whether there is a connection to send it on; a message is not kept for later,
            because what is worth keeping is kept on disk by the caller.
        """
        ...

    def close(self, farewell: Message | None = None) -> None:
        """Says the farewell in place of the will and disconnects."""
        ...
