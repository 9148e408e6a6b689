"""One connection of a :class:`~edge_sdk.transport.mqtt.client.Client`: handshake, window, pings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from edge_sdk.errors import TransferError
from edge_sdk.transport.link import Message
from edge_sdk.transport.mqtt import codec
from edge_sdk.transport.mqtt.codec import Received
from edge_sdk.transport.mqtt.reasons import FAILURE, reason_text
from edge_sdk.transport.mqtt.window import Window

log = logging.getLogger(__name__)

BUFFERED = 4 * 2**20  # bytes; more is not handed to a socket that does not take it
IN_FLIGHT = 1000  # messages at QoS 1; more are no faster, and all are sent again after an outage
OVERHEAD = 16  # bytes of a PUBLISH beside payload and topic, at most


class Connection(asyncio.Protocol):
    """What happens between opening a socket and losing it.

    Attributes:
        accepted: The broker's answer to CONNECT.
        lost: Done when the connection has ended, with the reason.
        room: Set while another message may be sent.
        gone: Set when the socket is closed and all is written that could be.
        alive: Whether it has not ended.
        number: As given.

    Args:
        version: Protocol level.
        hello: The CONNECT packet.
        number: Of this connection, for what is received on it.
        window: Messages that the broker has not acknowledged; outlives connections.
        on_received: Gets the messages of one read of the socket.
    """

    def __init__(
        self,
        version: codec.Version,
        hello: bytes,
        number: int,
        window: Window,
        on_received: Callable[[list[Received]], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.accepted: asyncio.Future[codec.Accepted] = loop.create_future()
        self.lost: asyncio.Future[str] = loop.create_future()
        self.room = asyncio.Event()
        self.gone = asyncio.Event()
        self.alive = False
        self.number = number
        self._version = version
        self._hello = hello
        self._window = window
        self._on_received = on_received
        self._reader = codec.PacketReader(version, connection=number)
        self._subscribing: dict[int, asyncio.Future[tuple[int, ...]]] = {}
        self._transport: asyncio.Transport | None = None
        self._loop = loop
        self._heard = self._said = 0.0
        self._limit, self._largest = IN_FLIGHT, codec.LARGEST
        self._paused = False
        self._pinging: asyncio.TimerHandle | None = None
        self._complained: set[int] = set()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says hello."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(BUFFERED)
        self.alive = True
        self._write(self._hello)

    def data_received(self, data: bytes) -> None:
        """Hands on what came."""
        if not self._heard and data[0] != codec.CONNACK_BYTE:
            self.end("what answers there is no MQTT broker")
            return
        self._heard = self._loop.time()
        received: list[Received] = []
        try:
            for packet in self._reader.feed(data):
                if type(packet) is Received:
                    received.append(packet)
                elif type(packet) is codec.Acknowledged:
                    self._acknowledged(packet)
                else:
                    self._control(packet)
        except TransferError as error:
            self.end(error.message)
        self._update_room()
        if received:
            self._on_received(received)

    def connection_lost(self, error: Exception | None) -> None:
        """Wakes up who waits."""
        self.end(_text(error) if error else "it closed the connection")
        self.gone.set()

    def pause_writing(self) -> None:
        """The broker does not keep up."""
        self._paused = True
        self._update_room()

    def resume_writing(self) -> None:
        """The broker keeps up again."""
        self._paused = False
        self._update_room()

    # What the client calls.

    def begin(self, accepted: codec.Accepted, keepalive: int) -> None:
        """The broker has let us in: messages may flow, and pings begin."""
        self._limit = min(accepted.receive_maximum, IN_FLIGHT)
        self._largest = accepted.largest
        self._window.begin()
        self._update_room()
        seconds = keepalive if accepted.keepalive is None else accepted.keepalive
        if seconds:
            self._ping(seconds)

    async def resend(self, messages: Sequence[tuple[int, Message]], *, again: bool) -> None:
        """Sends messages once more that an earlier connection did not bring to an end."""
        at = 0
        while at < len(messages) and self.alive:
            await self.room.wait()
            some = messages[at : at + max(1, self._limit - self._window.sent)]
            at += len(some)
            for packet_id, message in some:
                self._window.sent_again(packet_id)
                self._write(codec.publish(self._version, message, packet_id, again=again))
            self._update_room()

    def send(self, messages: Sequence[Message]) -> int:
        """Sends as many as the window has room for, and says how many that were."""
        packets: list[bytes] = []
        sent = 0
        for message in messages:
            if message.qos and self._window.sent >= self._limit:
                break
            sent += 1
            if len(message.payload) > self._largest - OVERHEAD - 4 * len(message.topic):
                log.error(
                    "%s: %d bytes, more than the broker takes", message.topic, len(message.payload)
                )
                continue
            packet_id = self._window.add(message) if message.qos else 0
            packets.append(codec.publish(self._version, message, packet_id))
        self._write(b"".join(packets))
        self._update_room()
        return sent

    def acknowledge(self, packet_ids: Iterable[int]) -> None:
        """Tells the broker that it need not send these again."""
        self._write(b"".join(map(codec.puback, packet_ids)))

    async def subscribe(self, filters: Sequence[str], qos: int) -> tuple[int, ...]:
        """Asks for what matches; the broker's reason for each, bad from 128 on."""
        packet_id = self._window.reserve()
        answer: asyncio.Future[tuple[int, ...]] = self._loop.create_future()
        self._subscribing[packet_id] = answer
        self._write(codec.subscribe(self._version, packet_id, filters, qos))
        try:
            return await answer
        finally:
            self._subscribing.pop(packet_id, None)
            self._window.release(packet_id)

    def end(self, reason: str, *, politely: bool = False) -> None:
        """Ends it, if it has not ended yet; politely means that no will is published."""
        if self._transport is not None and self.alive:
            if politely:
                self._write(codec.DISCONNECT)
                self._transport.close()
            else:
                self._transport.abort()
        self.alive = False
        if self._pinging is not None:
            self._pinging.cancel()
        if not self.lost.done():
            self.lost.set_result(reason)
        waiting: list[asyncio.Future[Any]] = [self.accepted, *self._subscribing.values()]
        for answer in waiting:
            if not answer.done():
                answer.set_exception(TransferError(reason))
                answer.exception()  # nobody may be waiting
        self.room.set()

    # Parts.

    def _write(self, data: bytes) -> None:
        # A write that failed closes the transport before connection_lost() is called.
        if data and self.alive and self._transport and not self._transport.is_closing():
            self._said = self._loop.time()
            self._transport.write(data)

    def _update_room(self) -> None:
        if not self.alive or (not self._paused and self._window.sent < self._limit):
            self.room.set()
        else:
            self.room.clear()

    def _acknowledged(self, packet: codec.Acknowledged) -> None:
        message = self._window.acknowledged(packet.packet_id)
        if packet.reason >= FAILURE and packet.reason not in self._complained:
            self._complained.add(packet.reason)  # once; else a log may fill a disk
            topic = message.topic if message else ""
            log.warning("message to %s was refused: %s", topic, reason_text(packet.reason))

    def _control(self, packet: codec.Packet) -> None:
        if isinstance(packet, codec.Accepted):
            if not self.accepted.done():
                self.accepted.set_result(packet)
        elif isinstance(packet, codec.Subscribed):
            answer = self._subscribing.get(packet.packet_id)
            if answer is not None and not answer.done():
                answer.set_result(packet.reasons)
        elif isinstance(packet, codec.Disconnected):
            self.end(reason_text(packet.reason))

    def _ping(self, keepalive: float) -> None:
        """Looks after half the time whether a ping is due, or the broker gone."""
        now = self._loop.time()
        if now - self._heard > keepalive * 1.5:
            self.end("it fell silent")
            return
        if now - min(self._heard, self._said) >= keepalive / 2:
            self._write(codec.PINGREQ)
        self._pinging = self._loop.call_later(keepalive / 2, self._ping, keepalive)


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
