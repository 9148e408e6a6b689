"""The packets of MQTT 3.1.1 and 5 that a client sends and receives, at QoS 0 and 1. Pure.

Section numbers are those of the OASIS standard MQTT 5.0; 3.1.1 differs in that it has no
properties and fewer reasons. Functions named after packets encode them; a
:class:`PacketReader` decodes what comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack
from typing import Literal

import msgspec

from edge_sdk.transport.link import Message
from edge_sdk.transport.mqtt import properties
from edge_sdk.transport.mqtt.properties import Cursor, length_prefix, malformed, text

Version = Literal[4, 5]
"""Protocol level on the wire: 4 is MQTT 3.1.1."""

LARGEST = 268_435_455  # four bytes of seven bits (1.5.5)
PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"
CONNACK_BYTE = 0x20  # what a broker says first

_CONNACK, _PUBLISH, _PUBACK, _SUBACK, _PINGRESP, _DISCONNECT = 2, 3, 4, 9, 13, 14
_NAMES = {2: "CONNACK", 3: "PUBLISH", 4: "PUBACK", 9: "SUBACK", 13: "PINGRESP", 14: "DISCONNECT"}
_OLD_REASONS = {1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}  # 3.1.1's return codes
UNSUPPORTED_VERSION = 0x84


class Received(msgspec.Struct, frozen=True, gc=False):
    """A message that came (PUBLISH).

    Attributes:
        topic: Where it was published.
        payload: Bytes as they travelled.
        qos: 0 or 1.
        packet_id: What its acknowledgement names; 0 at QoS 0.
        retain: Whether it was kept from before we subscribed.
        duplicate: Whether it may have come before.
        connection: Number of the connection that it came on.
    """

    topic: str
    payload: bytes
    qos: int = 0
    packet_id: int = 0
    retain: bool = False
    duplicate: bool = False
    connection: int = 0


class Acknowledged(msgspec.Struct, frozen=True, gc=False):
    """The broker has a message of ours, or says why not (PUBACK); reasons from 128 on are bad."""

    packet_id: int
    reason: int = 0


class Accepted(msgspec.Struct, frozen=True):
    """The broker's answer to CONNECT (CONNACK).

    Attributes:
        reason: 0 where it lets us in; codes of MQTT 5 whatever the version.
        session_present: Whether it remembers us from before.
        receive_maximum: How many messages at QoS 1 we may send before it acknowledges one.
        largest: Bytes of the largest packet that it takes.
        keepalive: Seconds that it wants in place of ours.
    """

    reason: int
    session_present: bool = False
    receive_maximum: int = 65_535
    largest: int = LARGEST
    keepalive: int | None = None


class Subscribed(msgspec.Struct, frozen=True):
    """The broker's answer to SUBSCRIBE (SUBACK): a reason for each filter, bad from 128 on."""

    packet_id: int
    reasons: tuple[int, ...]


class Pong(msgspec.Struct, frozen=True):
    """The broker is there (PINGRESP)."""


class Disconnected(msgspec.Struct, frozen=True):
    """The broker ends the connection and says why (DISCONNECT, MQTT 5 only)."""

    reason: int = 0


Packet = Received | Acknowledged | Accepted | Subscribed | Pong | Disconnected


def connect(
    version: Version,
    client_id: str,
    *,
    user: str | None = None,
    password: str | None = None,
    will: Message | None = None,
    keepalive: int = 30,
    clean: bool = True,
    session_seconds: int = 0,
    receive_maximum: int = 65_535,
) -> bytes:
    """CONNECT (3.1).

    Args:
        version: Protocol level.
        client_id: Who we are.
        user: Name to log in with.
        password: Its password.
        will: What the broker publishes when the connection breaks off.
        keepalive: Seconds within which the broker hears from us.
        clean: Whether it shall forget what it remembers of us.
        session_seconds: How long it shall remember us; MQTT 5 only.
        receive_maximum: How many messages at QoS 1 we take unacknowledged; MQTT 5 only.
    """
    flags = clean << 1
    body = [text(client_id)]
    if will is not None:
        flags |= 0x04 | will.qos << 3 | will.retain << 5
        body += [properties.NONE] if version == 5 else []
        body += [text(will.topic), len(will.payload).to_bytes(2, "big"), will.payload]
    if user is not None:
        flags |= 0x80
        body.append(text(user))
    if password is not None:
        flags |= 0x40
        body.append(text(password))
    head = text("MQTT") + bytes((version, flags)) + keepalive.to_bytes(2, "big")
    if version == 5:
        head += properties.encode(
            {
                properties.SESSION_EXPIRY: session_seconds,
                properties.RECEIVE_MAXIMUM: receive_maximum,
            }
        )
    return _packet(0x10, head + b"".join(body))


def publish(version: Version, message: Message, packet_id: int, *, again: bool = False) -> bytes:
    """PUBLISH (3.3); ``packet_id`` counts at QoS 1 only, ``again`` marks one sent before."""
    topic = message.topic.encode()
    payload = message.payload
    tail = b"\0" if version == 5 else b""  # no properties
    first = 0x30 | again << 3 | message.qos << 1 | message.retain
    if message.qos:
        tail = packet_id.to_bytes(2, "big") + tail
    length = 2 + len(topic) + len(tail) + len(payload)
    return b"".join(
        (bytes((first,)), length_prefix(length), pack(">H", len(topic)), topic, tail, payload)
    )


def puback(packet_id: int) -> bytes:
    """PUBACK (3.4): we have a message; it will not come again."""
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def subscribe(version: Version, packet_id: int, filters: Sequence[str], qos: int = 1) -> bytes:
    """SUBSCRIBE (3.8)."""
    body = [packet_id.to_bytes(2, "big")]
    body += [properties.NONE] if version == 5 else []
    for topic_filter in filters:
        body += [text(topic_filter), bytes((qos,))]
    return _packet(0x82, b"".join(body))


class PacketReader:
    """Decodes packets from bytes as they come, however they are cut.

    Args:
        version: Protocol level that is spoken.
        connection: What :attr:`Received.connection` shall be.
        largest: Bytes of the largest packet that is taken.
    """

    def __init__(self, version: Version, *, connection: int = 0, largest: int = LARGEST) -> None:
        self._version = version
        self._connection = connection
        self._largest = largest
        self._rest: list[bytes] = []
        self._have = 0
        self._need = 2

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that are complete with these bytes.

        Raises:
            TransferError: They are malformed; the connection is of no more use.
        """
        if self._rest:
            self._rest.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._rest)
        packets: list[Packet] = []
        position, size = 0, len(data)
        self._need = 2
        while size - position >= 2:
            length, start = self._length(data, position + 1, size)
            end = start + length
            if length < 0 or end > size:
                self._need = 2 if length < 0 else end - position
                break
            packets.append(self._decode(data, data[position], start, end))
            position = end
        self._have = size - position
        self._rest = [data[position:]] if position < size else []
        return packets

    def _length(self, data: bytes, position: int, size: int) -> tuple[int, int]:
        """Remaining length and where what it counts begins; -1 where it is not complete."""
        length = shift = 0
        while position < size:
            byte = data[position]
            position += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                if length > self._largest:
                    raise malformed("packet", f"{length} bytes; the largest taken: {self._largest}")
                return length, position
            shift += 7
            if shift > 21:
                raise malformed("packet", "its length is no number")
        return -1, position

    def _decode(self, data: bytes, first: int, start: int, end: int) -> Packet:
        kind = first >> 4
        try:
            if kind == _PUBLISH:
                return self._publish(data, first, start, end)
            if kind == _PUBACK and end - start == 2:
                return Acknowledged(data[start] << 8 | data[start + 1])
            return self._other(kind, Cursor(data, start, end))
        except UnicodeDecodeError as error:
            raise malformed(_NAMES.get(kind, str(kind)), "text that is not UTF-8") from error
        except IndexError as error:
            raise malformed(_NAMES.get(kind, str(kind)), "it ends too soon") from error

    def _publish(self, data: bytes, first: int, start: int, end: int) -> Received:
        qos, packet_id = first >> 1 & 3, 0
        topic_end = position = start + 2 + (data[start] << 8 | data[start + 1])
        if qos:
            position += 2
            if position > end:
                raise IndexError
            packet_id = data[topic_end] << 8 | data[topic_end + 1]
            if qos > 1 or packet_id == 0:
                raise malformed("PUBLISH", f"QoS {qos} with packet id {packet_id}")
        if self._version == 5:
            position = properties.skip(data, position, end)
        if position > end:
            raise IndexError
        return Received(
            data[start + 2 : topic_end].decode(),
            data[position:end],
            qos,
            packet_id,
            bool(first & 1),
            bool(first & 8),
            self._connection,
        )

    def _other(self, kind: int, cursor: Cursor) -> Packet:
        if kind == _CONNACK:
            return self._connack(cursor)
        if kind == _PUBACK:
            return Acknowledged(cursor.two(), cursor.byte() if cursor.left else 0)
        if kind == _SUBACK:
            packet_id = cursor.two()
            if self._version == 5:
                properties.decode(cursor)
            return Subscribed(packet_id, tuple(cursor.rest()))
        if kind == _PINGRESP:
            return Pong()
        if kind == _DISCONNECT and self._version == 5:
            return Disconnected(cursor.byte() if cursor.left else 0)
        raise malformed(f"packet of type {kind}", "brokers do not send it")

    def _connack(self, cursor: Cursor) -> Accepted:
        flags, reason = cursor.byte(), cursor.byte()
        found = properties.decode(cursor) if self._version == 5 and cursor.left else {}
        if found.get(properties.RECEIVE_MAXIMUM) == 0:
            raise malformed("CONNACK", "receive maximum 0")
        return Accepted(
            _OLD_REASONS.get(reason, reason),
            bool(flags & 1),
            found.get(properties.RECEIVE_MAXIMUM, 65_535),
            found.get(properties.LARGEST_PACKET, LARGEST),
            found.get(properties.SERVER_KEEP_ALIVE),
        )


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + length_prefix(len(body)) + body
