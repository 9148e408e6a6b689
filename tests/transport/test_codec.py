"""Packets: what is encoded is decoded again, and what is malformed is one kind of error."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.errors import TransferError
from edge_sdk.transport.link import Message
from edge_sdk.transport.mqtt import codec, properties
from edge_sdk.transport.mqtt.codec import (
    Accepted,
    Acknowledged,
    Disconnected,
    Packet,
    PacketReader,
    Pong,
    Received,
    Subscribed,
    Version,
)
from edge_sdk.transport.mqtt.properties import Cursor

VERSIONS = st.sampled_from([4, 5])
TOPICS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)
MESSAGES = st.builds(
    Message, TOPICS, st.binary(max_size=400), st.sampled_from([0, 1]), st.booleans()
)
PACKET_IDS = st.integers(1, 65_535)
LENGTHS = (0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, codec.LARGEST)


def cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """The bytes in pieces of these sizes, then one by one."""
    pieces, position = [], 0
    for size in sizes:
        pieces.append(data[position : position + size])
        position += size
    return [piece for piece in pieces if piece] + [bytes((byte,)) for byte in data[position:]]


def read(version: Version, pieces: Sequence[bytes]) -> list[Packet]:
    reader = PacketReader(version)
    return [packet for piece in pieces for packet in reader.feed(piece)]


@given(VERSIONS, st.lists(st.tuples(MESSAGES, PACKET_IDS)), st.lists(st.integers(1, 500)))
def test_messages_come_back_however_they_are_cut(
    version: Version, sent: list[tuple[Message, int]], sizes: list[int]
) -> None:
    data = b"".join(codec.publish(version, message, packet_id) for message, packet_id in sent)
    assert read(version, cut(data, sizes)) == [
        Received(one.topic, one.payload, one.qos, packet_id if one.qos else 0, one.retain)
        for one, packet_id in sent
    ]


@given(VERSIONS, PACKET_IDS)
def test_acknowledgements_come_back(version: Version, packet_id: int) -> None:
    assert read(version, [codec.puback(packet_id)]) == [Acknowledged(packet_id)]


@pytest.mark.parametrize("length", LENGTHS)
def test_lengths_come_back(length: int) -> None:
    encoded = properties.length_prefix(length)
    assert Cursor(encoded, 0, len(encoded)).number() == length


def test_a_message_sent_again_says_so_and_names_its_connection() -> None:
    data = codec.publish(5, Message("a", b"b", 1), 7, again=True)
    reader = PacketReader(5, connection=3)
    assert reader.feed(data) == [Received("a", b"b", 1, 7, duplicate=True, connection=3)]


def test_a_large_message_is_put_together_once() -> None:
    payload = bytes(1_000_000)
    data = codec.publish(5, Message("a", payload, 1), 1)
    pieces = [data[start : start + 1000] for start in range(0, len(data), 1000)]
    assert read(5, pieces) == [Received("a", payload, 1, 1)]


# Bytes from the standard's text, not from our encoder.


def test_connect_of_3_1_1_is_as_the_standard_has_it() -> None:
    packet = codec.connect(
        4, "c", user="u", password="p", will=Message("w", b"x", 1, True), keepalive=10
    )
    assert packet == (
        b"\x10\x19\x00\x04MQTT\x04\xee\x00\x0a" b"\x00\x01c" b"\x00\x01w\x00\x01x"
        b"\x00\x01u\x00\x01p"
    )  # fmt: skip


def test_connect_of_5_adds_properties() -> None:
    packet = codec.connect(5, "c", clean=False, session_seconds=60, receive_maximum=100)
    assert packet == (
        b"\x10\x16\x00\x04MQTT\x05\x00\x00\x1e\x08\x11\x00\x00\x00\x3c\x21\x00\x64\x00\x01c"
    )


def test_subscribe_is_as_the_standard_has_it() -> None:
    assert codec.subscribe(4, 10, ["a/b", "#"]) == b"\x82\x0c\x00\x0a\x00\x03a/b\x01\x00\x01#\x01"
    assert codec.subscribe(5, 10, ["a"], qos=0) == b"\x82\x07\x00\x0a\x00\x00\x01a\x00"


@pytest.mark.parametrize(
    ("version", "data", "packet"),
    [
        (4, b"\x20\x02\x01\x00", Accepted(0, session_present=True)),
        (4, b"\x20\x02\x00\x01", Accepted(codec.UNSUPPORTED_VERSION)),
        (4, b"\x20\x02\x00\x05", Accepted(0x87)),
        (5, b"\x20\x02\x00\x01", Accepted(codec.UNSUPPORTED_VERSION)),
        (5, b"\x20\x03\x00\x00\x00", Accepted(0)),
        (
            5,
            b"\x20\x0e\x00\x00\x0b\x21\x00\x14\x27\x00\x01\x00\x00\x13\x00\x3c",
            Accepted(0, receive_maximum=20, largest=65_536, keepalive=60),
        ),
        (5, b"\x20\x0c\x00\x87\x09\x26\x00\x01k\x00\x03abc", Accepted(0x87)),
        (4, b"\x90\x04\x00\x0a\x01\x80", Subscribed(10, (1, 0x80))),
        (5, b"\x90\x09\x00\x0a\x04\x1f\x00\x01x\x01\x87", Subscribed(10, (1, 0x87))),
        (5, b"\x40\x03\x00\x07\x87", Acknowledged(7, 0x87)),
        (5, b"\x40\x04\x00\x07\x10\x00", Acknowledged(7, 0x10)),
        (5, b"\xe0\x00", Disconnected(0)),
        (5, b"\xe0\x02\x8e\x00", Disconnected(0x8E)),
        (5, b"\xd0\x00", Pong()),
        (5, b"\x30\x09\x00\x01a\x04\x01\x01\x0b\x05x", Received("a", b"x")),
    ],
)
def test_answers_of_brokers(version: Version, data: bytes, packet: Packet) -> None:
    assert read(version, [data]) == [packet]


@pytest.mark.parametrize(
    ("version", "data", "message"),
    [
        (4, b"\x30\x01\x00", "PUBLISH: it ends too soon"),
        (4, b"\x30\x00\x00\x01a", "PUBLISH: it ends too soon"),
        (4, b"\x30\x03\x00\x05a\x30\x30\x30\x30", "PUBLISH: it ends too soon"),
        (4, b"\x32\x03\x00\x01a", "PUBLISH: it ends too soon"),
        (4, b"\x32\x05\x00\x01a\x00\x00", "PUBLISH: QoS 1 with packet id 0"),
        (4, b"\x34\x05\x00\x01a\x00\x01", "PUBLISH: QoS 2 with packet id 1"),
        (4, b"\x36\x05\x00\x01a\x00\x01", "PUBLISH: QoS 3 with packet id 1"),
        (4, b"\x30\x03\x00\x01\xff", "PUBLISH: text that is not UTF-8"),
        (5, b"\x30\x03\x00\x01a", "PUBLISH: it ends too soon"),
        (5, b"\x30\x04\x00\x01a\x05", "PUBLISH: it ends too soon"),
        (5, b"\x30\x05\x00\x01a\x01\x7e", "packet: property 0x7e"),
        (5, b"\x20\x06\x00\x00\x03\x21\x00\x00", "CONNACK: receive maximum 0"),
        (4, b"\x20\x01\x00", "CONNACK: it ends too soon"),
        (4, b"\x40\x01\x00", "PUBACK: it ends too soon"),
        (4, b"\x90\x01\x00", "SUBACK: it ends too soon"),
        (4, b"\xe0\x00", "packet of type 14: brokers do not send it"),
        (4, b"\x10\x00", "packet of type 1: brokers do not send it"),
        (4, b"\x00\x00", "packet of type 0: brokers do not send it"),
        (4, b"\x30\xff\xff\xff\xff\x7f", "packet: its length is no number"),
        (5, b"\xe0\xff\xff\xff\xff", "packet: its length is no number"),
    ],
)
def test_malformed_packets_are_named(version: Version, data: bytes, message: str) -> None:
    with pytest.raises(TransferError, match=re.escape(f"malformed {message}")) as caught:
        read(version, [data])
    assert caught.value.remedy == "is it an MQTT broker?"


def test_a_packet_that_is_too_large_is_not_waited_for() -> None:
    with pytest.raises(TransferError, match="1000 bytes; the largest taken: 999"):
        PacketReader(4, largest=999).feed(b"\x30" + properties.length_prefix(1000))


@given(VERSIONS, st.lists(st.binary(max_size=60)))
def test_arbitrary_bytes_are_packets_or_that_one_error(
    version: Version, pieces: list[bytes]
) -> None:
    try:
        read(version, pieces)
    except TransferError as error:
        assert "malformed" in str(error)


@given(VERSIONS, MESSAGES, PACKET_IDS, st.data())
def test_a_flipped_byte_is_a_packet_or_that_one_error(
    version: Version, message: Message, packet_id: int, data: st.DataObject
) -> None:
    packet = bytearray(codec.publish(version, message, packet_id))
    packet[data.draw(st.integers(0, min(len(packet), 400) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        read(version, [bytes(packet)])
    except TransferError as error:
        assert "malformed" in str(error)
