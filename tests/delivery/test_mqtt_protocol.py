"""The protocol alone: what is asked, what is answered, and in which order."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.bundle.store import Store
from edge_sdk.errors import TransferError
from edge_sdk.fleet.mqtt_blobs import QUESTIONS, MqttBlobs, _packed
from edge_sdk.transport.mqtt.codec import Received
from edge_sdk.transport.mqtt_blobs import (
    LARGEST_PIECE,
    LARGEST_RANGE,
    PIECE,
    Data,
    Get,
    Pace,
    Reading,
    ranges,
)

ASK = Get(0, "digits", "sha256:" + "0" * 64, False, 0, 0)


@given(
    st.integers(-5, 300_000),
    st.integers(-5, 2**21),
    st.integers(-5, 2**18),
    st.integers(0, 250_000),
)
def test_answers_cover_what_was_asked_and_is_there(offset, length, piece, size):
    get = msgspec.structs.replace(ASK, offset=offset, length=length, piece=piece)
    if length > 100 and piece < 10:
        return
    found = list(ranges(get, size))
    start = min(max(offset, 0), size)
    end = min(start + min(max(length, 0), LARGEST_RANGE), size)
    assert found[0][0] == start
    assert all(0 <= count <= LARGEST_PIECE for _, count in found)
    assert sum(count for _, count in found) == end - start
    assert [at for at, _ in found[1:]] == [at + count for at, count in found[:-1]]


def over_a_link(rate, trip, readings, rounds=400):
    """Readings that ask all the time, over a link of ``rate`` bytes/s with a round trip.

    Gives the seconds that a control message would queue, per answer, and the share of the
    link's time that was used, both in the second half.
    """
    pace = Pace()
    waiting: deque[tuple[float, float, int]] = deque()  # arrives, asked, bytes
    free, now, waits, used = 0.0, 0.0, [], 0.0
    with contextlib.ExitStack() as stack:
        for _ in range(readings):
            stack.enter_context(pace.shared())
        for number in range(rounds):
            while len(waiting) < Reading.AHEAD * readings:
                length = pace.length
                begin = max(free, now + trip)
                free = begin + length / rate
                waiting.append((free, now, length))
            now, asked, length = waiting.popleft()
            pace.answered(now - asked, length)
            if number == rounds // 2:
                half, used = now, 0.0
            used += length / rate
            waits.append(max(0.0, free - now - trip))
    return waits[rounds // 2 :], used / (now - half)


@pytest.mark.parametrize("rate", [20_000, 200_000, 2_000_000, 10_000_000])
@pytest.mark.parametrize("trip", [0.001, 0.05])
@pytest.mark.parametrize("readings", [1, 4])
def test_control_messages_do_not_wait_and_the_link_is_not_idle(rate, trip, readings):
    waits, used = over_a_link(rate, trip, readings, rounds=2000)
    assert max(waits) < 2 * Pace.TARGET
    assert used > 0.8


def test_a_long_round_trip_is_not_taken_for_a_queue():
    waits, used = over_a_link(1_000_000, 0.6, 1, rounds=4000)
    assert used > 0.5
    assert max(waits) < 2 * Pace.TARGET


def test_what_is_lost_makes_it_begin_with_little_again():
    pace = Pace()
    for _ in range(100):
        pace.answered(0.001, 100_000)
    assert pace.amount == Pace.LARGEST
    assert pace.length == LARGEST_RANGE
    pace.lost()
    assert pace.amount == Pace.SMALLEST


def exchange(blob, offset, draw, lost=0.0, doubled=0.0):
    """Reads a blob over a channel that loses, repeats, and never reorders.

    Gives the bytes, how many travelled for them, and how often the channel failed.
    """
    reading = Reading(ASK, offset, len(blob), Pace())
    now, got, travelled, faults = 0.0, b"", 0, 0
    way: list[Data] = []
    while not reading.complete:
        for get in reading.questions(now):
            for at, count in ranges(get, len(blob)):
                if draw.random() < lost:
                    faults += 1
                    continue
                answer = _packed(Data(get.stream, at, blob[at : at + count], len(blob)))
                again = draw.random() < doubled
                faults += again
                way += [answer] * (1 + again)
        if not way:
            reading.again()
            now += 10
            continue
        now += 0.001
        piece = reading.take(way.pop(0), now)
        if piece:
            got += piece.data
            travelled += piece.travelled
    return got, travelled, faults


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 400_000),
    st.integers(0, 400_000),
    st.floats(0, 0.3),
    st.sampled_from([1, 9999]),
    st.randoms(),
)
def test_every_byte_comes_once_and_in_order(size, offset, lost, repeated, draw):
    blob = (random.Random(size).randbytes(size // repeated + 1) * repeated)[:size]
    got, _, _ = exchange(blob, min(offset, size), draw, lost, doubled=lost)
    assert got == blob[min(offset, size) :]


def test_lost_and_repeated_pieces_are_really_lost_and_repeated():
    blob = bytes(2_000_000)
    got, _, faults = exchange(blob, 0, random.Random(1), 0.2, 0.2)
    assert got == blob
    assert faults > 5


def test_what_shrinks_is_asked_for_in_larger_pieces_and_travels_compressed():
    graph = "".join(f"node {number} has inputs\n" for number in range(20_000)).encode()
    got, travelled, _ = exchange(graph, 0, random.Random(1))
    assert got == graph
    assert travelled < len(graph) / 4


def test_what_says_that_it_is_compressed_and_is_not_is_asked_for_again():
    reading = Reading(ASK, 0, 10, Pace())
    (get,) = reading.questions(0.0)
    with pytest.raises(TransferError, match="cannot be decompressed") as error:
        reading.take(Data(get.stream, 0, b"0123456789", 10, packed=True), 1.0)
    assert error.value.passing


def test_stale_answers_are_passed_over():
    reading = Reading(ASK, 0, 10, Pace())
    (first,) = reading.questions(0.0)
    reading.again()
    (second,) = reading.questions(0.0)
    assert first.stream != second.stream
    assert reading.take(Data(first.stream, 0, b"wrong"), 1.0) is None
    assert reading.take(Data(second.stream, 0, b"0123456789"), 1.0) == (b"0123456789", 10)
    assert reading.complete


def test_a_blob_that_is_shorter_than_it_should_be_is_refused():
    reading = Reading(ASK, 0, 10, Pace())
    (get,) = reading.questions(0.0)
    with pytest.raises(TransferError, match="has 4 bytes instead of 10"):
        reading.take(Data(get.stream, 0, b"", 4), 1.0)


class Recorder:
    """A bus on which nobody else speaks.

    Attributes:
        said: Topic and answer, in order.
    """

    def __init__(self) -> None:
        self.said: list[tuple[str, Data]] = []
        self._handler = None

    def subscribe(self, topic_filter, handler):
        assert topic_filter == "edge/things/+/blobs/get"
        self._handler = handler

    async def publish(self, messages):
        for message in messages:
            assert message.qos == 0
            data = msgspec.msgpack.decode(message.payload, type=Data)
            self.said.append((message.topic, data))

    async def ask(self, thing, payload):
        if isinstance(payload, Get):
            payload = msgspec.msgpack.encode(payload)
        topic = f"edge/things/{thing}/blobs/get"
        await self._handler(Received(topic=topic, payload=payload, qos=0, packet_id=0))


@pytest.fixture
def store(bundle, tmp_path):
    store = Store(tmp_path / "served")
    store.install(bundle)
    return store


def answers(store, *questions):
    """What a server says to questions that came at once: ``(thing, Get or bytes)``."""

    async def talk():
        bus = Recorder()
        server = MqttBlobs(bus, store.root, "edge/things")
        for thing, question in questions:
            await bus.ask(thing, question)
        running = asyncio.create_task(server.run())
        while server.busy:
            await asyncio.sleep(0.001)
        running.cancel()
        return bus.said

    return asyncio.run(talk())


def get_blob(digest, stream=1, **changes):
    return Get(stream, "digits", digest, False, 0, LARGEST_RANGE, **changes)


def record_of(bundle):
    return bundle.variants[0].files["variant.json"].blob


def test_a_blob_comes_in_pieces(store, bundle):
    blob = record_of(bundle)
    said = answers(store, ("cam-1", get_blob(blob.digest, piece=500)))
    assert {topic for topic, _ in said} == {"edge/things/cam-1/blobs/data"}
    assert [data.offset for _, data in said] == list(range(0, blob.size, 500))
    assert b"".join(data.data for _, data in said) == store.blobs.path(blob.digest).read_bytes()
    assert {(data.size, data.digest, data.stream) for _, data in said} == {
        (blob.size, blob.digest, 1)
    }


@pytest.mark.parametrize("name", ["1.0.0", "digest"])
def test_a_tag_is_resolved_by_a_question_for_no_byte(store, bundle, name):
    index = bundle.descriptor
    name = index.digest if name == "digest" else name
    ((_, data),) = answers(store, ("cam-1", Get(7, "digits", name, True, 0, 0)))
    assert (data.digest, data.size, data.media_type) == (index.digest, index.size, index.media_type)
    assert data.data == b""


def test_things_are_answered_in_turn(store, bundle):
    blob = record_of(bundle)
    said = answers(
        store,
        ("a", get_blob(blob.digest, piece=500)),
        ("a", get_blob(blob.digest, stream=2, piece=500)),
        ("b", get_blob(blob.digest, piece=500)),
    )
    things = [topic.split("/")[2] for topic, _ in said]
    count = -(-blob.size // 500)
    assert count > 2
    assert things == ["a", "b"] * count + ["a"] * count


def test_a_flood_of_questions_does_not_fill_the_memory(store, bundle):
    blob = record_of(bundle)
    said = answers(store, *[("a", get_blob(blob.digest, stream=n)) for n in range(500)])
    assert len(said) == QUESTIONS + 1


@pytest.mark.parametrize(
    "name",
    [
        "sha256:" + "0" * 64,
        "sha256:../../index.json",
        "../../index.json",
        "/etc/passwd",
        "index.json",
        "",
    ],
)
@pytest.mark.parametrize("document", [False, True])
def test_what_is_no_blob_of_the_store_is_refused(store, name, document):
    ((_, data),) = answers(store, ("a", Get(1, "digits", name, document, 0, 100)))
    assert "has no" in data.error
    assert data.data == b""


def test_another_repository_gives_nothing(store, bundle):
    digest = record_of(bundle).digest
    ((_, data),) = answers(store, ("a", Get(1, "../digits", digest, False, 0, 100)))
    assert "has no" in data.error


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff" * 5000, msgspec.msgpack.encode([1, 2])])
def test_what_is_no_question_is_passed_over(store, bundle, payload):
    blob = record_of(bundle)
    said = answers(store, ("a", payload), ("a", get_blob(blob.digest)))
    assert [data.size for _, data in said] == [blob.size] * -(-blob.size // PIECE)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_payload_upsets_a_device(payload):
    from edge_sdk.transport.link import Message
    from edge_sdk.transport.memory import MemoryBroker, MemoryLink
    from edge_sdk.transport.mqtt_blobs import MqttSource, data_topic

    broker = MemoryBroker()
    link = MemoryLink(broker)
    MqttSource(link, "edge/things", "cam-1")
    link.open(lambda _: None)
    broker.publish(Message(data_topic("edge/things", "cam-1"), payload, qos=0))
    link.close()
