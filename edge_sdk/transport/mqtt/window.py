"""Messages at QoS 1 that were sent and not acknowledged, and their packet ids. Pure."""

from __future__ import annotations

from edge_sdk.transport.link import Message

PACKET_IDS = 65_535


class Window:
    """What must be sent again on the next connection if this one breaks off.

    Attributes:
        sent: How many were sent on this connection and not acknowledged.
    """

    def __init__(self) -> None:
        self.sent = 0
        self._messages: dict[int, Message] = {}
        self._reserved: set[int] = set()
        self._last = 0

    def begin(self) -> None:
        """A new connection: nothing was sent on it."""
        self.sent = 0

    def add(self, message: Message) -> int:
        """Takes a message that is sent now; gives its packet id."""
        packet_id = self._free()
        self._messages[packet_id] = message
        self.sent += 1
        return packet_id

    def sent_again(self, packet_id: int) -> None:
        """A message that is still here was sent on this connection too."""
        if packet_id in self._messages:
            self.sent += 1

    def acknowledged(self, packet_id: int) -> Message | None:
        """The broker has it; the message, or ``None`` for one that nobody sent."""
        message = self._messages.pop(packet_id, None)
        if message is not None:
            self.sent -= 1
        return message

    def unacknowledged(self) -> list[tuple[int, Message]]:
        """Packet ids and messages, in the order in which they were first sent."""
        return list(self._messages.items())

    def reserve(self) -> int:
        """A packet id for something else than a message."""
        packet_id = self._free()
        self._reserved.add(packet_id)
        return packet_id

    def release(self, packet_id: int) -> None:
        """It is no longer needed."""
        self._reserved.discard(packet_id)

    def _free(self) -> int:
        packet_id = self._last
        while True:
            packet_id = packet_id % PACKET_IDS + 1
            if packet_id not in self._messages and packet_id not in self._reserved:
                self._last = packet_id
                return packet_id
