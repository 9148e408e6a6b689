"""Blobs over MQTT, for devices behind networks where only the broker's port is open.

The device asks on ``<root>/<thing>/blobs/get`` for a range of a document or blob; the server
answers on ``<root>/<thing>/blobs/data`` with messages of one piece each. The server keeps no
state: every question stands for itself, so a transfer is resumed by asking from an offset.

Both ways are QoS 0. Pieces that are lost, as at a reconnect, are asked for again by offset;
a broker's own repetition would only send stale pieces to a device that has come back, and
make it keep every piece of every device. How much a device asks for ahead follows from how
long answers take, so that control messages on the same connection never wait for long
behind pieces (:class:`Pace`).
"""

from __future__ import annotations

import queue
import random
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from edge_sdk.bundle.oci import Descriptor
from edge_sdk.bundle.record import Blob
from edge_sdk.errors import TransferError
from edge_sdk.transport.link import Link, Message
from edge_sdk.transport.packing import unpack
from edge_sdk.transport.source import Piece, Reference

PIECE = 32 * 1024
"""Bytes in one message; brokers in the cloud take 128 KiB and less."""
LARGEST_PIECE = 128 * 1024
LARGEST_RANGE = 1024 * 1024
"""Bytes that one question may ask for."""
STALL = 10.0
"""Seconds without an answer after which it is asked for again."""
_QUESTIONS = 3  # in a row without an answer
_STREAMS = 2**32
_ATTENTION = 0.5  # seconds within which a lost connection is noticed


class Get(msgspec.Struct, frozen=True, array_like=True):
    """A device asks for a range of bytes.

    Attributes:
        stream: Chosen by the device, and repeated in the answers.
        repository: As in a registry.
        name: A blob's digest; of a document the digest or tag.
        document: Whether an image index or manifest is meant.
        offset: Of the first byte.
        length: Bytes wanted, at most :data:`LARGEST_RANGE`.
        piece: Bytes per message, at most :data:`LARGEST_PIECE`.
        packs: Whether pieces may come compressed.
    """

    stream: int
    repository: str
    name: str
    document: bool
    offset: int
    length: int
    piece: int = PIECE
    packs: bool = False


class Data(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A piece of what a device asked for, or why there is none.

    Attributes:
        stream: Of the question.
        offset: Of the first byte.
        data: The bytes.
        size: Of the whole.
        digest: Of the whole.
        media_type: Of a document.
        error: What is wrong; empty with data.
        passing: Whether trying again later may help.
        packed: Whether the bytes are compressed, by gzip.
    """

    stream: int
    offset: int
    data: bytes = b""
    size: int = 0
    digest: str = ""
    media_type: str = ""
    error: str = ""
    passing: bool = False
    packed: bool = False


def get_topic(root: str, thing: str) -> str:
    """Where a device asks; with ``+`` for the thing, what a server subscribes to."""
    return f"{root}/{thing}/blobs/get"


def data_topic(root: str, thing: str) -> str:
    """Where a device is answered."""
    return f"{root}/{thing}/blobs/data"


def ranges(get: Get, size: int) -> Iterator[tuple[int, int]]:
    """Offset and length of every message that answers a question about ``size`` bytes.

    A question beyond the end is answered by one empty piece, which tells the size.
    """
    piece = min(max(get.piece, 1), LARGEST_PIECE)
    start = min(max(get.offset, 0), size)
    end = min(start + min(max(get.length, 0), LARGEST_RANGE), size)
    if start == end:
        yield start, 0
    for offset in range(start, end, piece):
        yield offset, min(piece, end - offset)


class Pace:
    """How much a device asks for ahead, so that pieces queue for about :attr:`TARGET` at most.

    What is asked for ahead queues at the narrowest link, and control messages queue behind
    it. So the amount follows the delay of answers beyond the shortest that was seen: it
    doubles with every round while there is hardly any, grows slowly towards the target, and
    shrinks beyond. That is how LEDBAT (RFC 6817) controls congestion.

    Attributes:
        amount: Bytes that may be outstanding, of all readings together.
    """

    TARGET = 0.4  # seconds
    SMALLEST = 8 * 1024
    LARGEST = 4 * 1024 * 1024

    def __init__(self) -> None:
        self.amount = float(self.SMALLEST)
        self._readings = 0
        self._shortest = float("inf")
        self._lock = threading.Lock()

    @property
    def length(self) -> int:
        """Bytes to ask for at once, by each reading."""
        share = int(self.amount) // (Reading.AHEAD * max(1, self._readings))
        return min(max(share, 1024), LARGEST_RANGE)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """One reading more, for as long as the block lasts."""
        with self._lock:
            self._readings += 1
        try:
            yield
        finally:
            with self._lock:
                self._readings -= 1

    def answered(self, seconds: float, count: int) -> None:
        """Says how long the answer of so many bytes took."""
        with self._lock:
            self._shortest = min(self._shortest, seconds)
            room = 1 - (seconds - self._shortest) / self.TARGET
            if room > 0.75:
                self.amount += count
            elif room > 0:
                self.amount += room * count * PIECE / self.amount
            else:
                self.amount -= count * min(0.5, -room)
            self.amount = min(max(self.amount, self.SMALLEST), self.LARGEST)

    def lost(self) -> None:
        """Says that an answer did not come."""
        self.amount = float(self.SMALLEST)


class Reading:
    """Asks for a blob range by range, two at a time, and puts the answers in order. Pure.

    Args:
        what: The question; stream, offset and length are filled in.
        offset: Where to begin.
        size: Of the whole.
        pace: How much to ask for ahead; may be shared with other readings.

    Attributes:
        streams: All streams so far; answers to all but the last are stale.
    """

    AHEAD = 2
    SHRINKS_BY = 8.0  # at most, so that what shrinks no more is not asked for in a flood

    def __init__(self, what: Get, offset: int, size: int, pace: Pace) -> None:
        self.streams = [_new_stream()]
        self._what = what
        self._size = size
        self._pace = pace
        self._have = self._asked = offset
        self._came = 0  # bytes on the wire of the answer that is coming
        self._shrinks_by = 1.0  # so much was the last answer compressed
        self._open: deque[tuple[int, int, float]] = deque()  # end, length, when asked for

    @property
    def complete(self) -> bool:
        """Whether all of it is here."""
        return self._have >= self._size

    def questions(self, now: float) -> Iterator[Get]:
        """What to ask now."""
        while len(self._open) < self.AHEAD and self._asked < self._size:
            length = min(int(self._pace.length * self._shrinks_by), LARGEST_RANGE)
            length = min(length, self._size - self._asked)
            yield msgspec.structs.replace(
                self._what,
                stream=self.streams[-1],
                offset=self._asked,
                length=length,
                piece=min(PIECE, length),
            )
            self._asked += length
            self._open.append((self._asked, length, now))

    def take(self, data: Data, now: float) -> Piece | None:
        """The next bytes in order; none from a stale answer or after a gap.

        Raises:
            TransferError: The other side has less than there should be, or gives no gzip
                where it says so.
        """
        if data.stream != self.streams[-1]:
            return None
        if data.offset != self._have:
            self.again()
            return None
        if not data.data:
            raise TransferError(
                f"has {data.size} bytes instead of {self._size}",
                where=self._what.name,
                passing=False,
            )
        piece = _unpacked(data) if data.packed else Piece(data.data, len(data.data))
        self._have += len(piece.data)
        self._came += piece.travelled
        while self._open and self._open[0][0] <= self._have:
            _, length, asked = self._open.popleft()
            self._pace.answered(now - asked, self._came)
            self._shrinks_by = min(max(length / max(self._came, 1), 1.0), self.SHRINKS_BY)
            self._came = 0
        return piece

    def again(self) -> None:
        """Asks anew for what has not come; later answers to earlier questions are stale."""
        self.streams.append(_new_stream())
        self._open.clear()
        self._asked = self._have
        self._came = 0
        self._pace.lost()


class MqttSource:
    """A :class:`~edge_sdk.transport.source.BlobSource` on a device's connection to its fleet.

    Only what the fleet's server has in its own store is there, whatever the registry's name.

    Args:
        link: The connection; it may be opened later, and is closed by its owner.
        root: Topics before the thing's name.
        thing: The device.
    """

    def __init__(self, link: Link, root: str, thing: str) -> None:
        self._link = link
        self._topic = get_topic(root, thing)
        self._pace = Pace()
        self._answers: dict[int, queue.SimpleQueue[Data]] = {}
        link.subscribe(data_topic(root, thing), self._arrived, qos=0)

    def resolve(self, reference: Reference) -> Descriptor:
        """The image index or manifest that a reference stands for."""
        name = reference.digest or reference.tag or "latest"
        what = Get(_new_stream(), reference.repository, name, True, 0, 0)
        answers: queue.SimpleQueue[Data] = queue.SimpleQueue()
        with self._listening([what.stream], answers):
            for _ in range(_QUESTIONS):
                self._ask(what)
                data = self._answer(answers)
                if data is not None:
                    return Descriptor(
                        media_type=data.media_type, digest=data.digest, size=data.size
                    )
        raise self._silence()

    def document(self, reference: Reference, descriptor: Descriptor) -> Piece:
        """An image index or manifest, whole; its digest is checked by the caller."""
        pieces = tuple(self._read(reference, descriptor.blob, 0, document=True))
        return Piece(b"".join(p.data for p in pieces), sum(p.travelled for p in pieces))

    def read(self, reference: Reference, blob: Blob, offset: int = 0) -> Iterator[Piece]:
        """The bytes of a blob from an offset on, in pieces; they are checked by the caller."""
        return self._read(reference, blob, offset, document=False)

    def close(self) -> None:
        """Ends what is being read meanwhile; the connection is its owner's."""
        for answers in tuple(self._answers.values()):
            answers.put(Data(0, 0, error="it was closed", passing=True))

    def _read(
        self, reference: Reference, blob: Blob, offset: int, *, document: bool
    ) -> Iterator[Piece]:
        what = Get(0, reference.repository, blob.digest, document, 0, 0, packs=True)
        reading = Reading(what, offset, blob.size, self._pace)
        answers: queue.SimpleQueue[Data] = queue.SimpleQueue()
        silent = 0
        with self._pace.shared(), self._listening(reading.streams, answers):
            while not reading.complete:
                for get in reading.questions(time.monotonic()):
                    self._answers[get.stream] = answers
                    self._ask(get)
                data = self._answer(answers)
                if data is None:
                    silent += 1
                    if silent == _QUESTIONS:
                        raise self._silence()
                    reading.again()
                elif piece := reading.take(data, time.monotonic()):
                    silent = 0
                    yield piece

    @contextmanager
    def _listening(self, streams: list[int], answers: queue.SimpleQueue[Data]) -> Iterator[None]:
        """Hands answers over; ``streams`` may grow meanwhile."""
        self._answers[streams[0]] = answers
        try:
            yield
        finally:
            for stream in streams:
                self._answers.pop(stream, None)

    def _ask(self, get: Get) -> None:
        if not self._link.publish(Message(self._topic, msgspec.msgpack.encode(get), qos=0)):
            raise TransferError("the broker is not reached", where=self._topic)

    def _answer(self, answers: queue.SimpleQueue[Data]) -> Data | None:
        """The next answer, or ``None`` where there is none for long.

        Raises:
            TransferError: The other side refuses, or the connection is lost.
        """
        end = time.monotonic() + STALL
        while (left := end - time.monotonic()) > 0:
            try:
                data = answers.get(timeout=min(left, _ATTENTION))
            except queue.Empty:
                if not self._link.connected:
                    raise TransferError("the broker is not reached", where=self._topic) from None
                continue
            if data.error:
                raise TransferError(data.error, where=self._topic, passing=data.passing)
            return data
        return None

    def _silence(self) -> TransferError:
        return TransferError(
            "the fleet's server does not answer",
            where=self._topic,
            remedy="check that `edge-sdk fleet serve` runs, and that this thing may use the topic",
        )

    def _arrived(self, message: Message) -> None:
        """On the link's thread: puts an answer where it is waited for."""
        try:
            data = msgspec.msgpack.decode(message.payload, type=Data)
        except msgspec.MsgspecError:
            return  # not from our server; what is missing is asked for again
        answers = self._answers.get(data.stream)
        if answers is not None:
            answers.put(data)


def _unpacked(data: Data) -> Piece:
    try:
        return next(unpack([data.data], LARGEST_PIECE))
    except zlib.error as error:
        raise TransferError(f"cannot be decompressed: {error}", where=data.digest) from error


def _new_stream() -> int:
    return random.SystemRandom().randrange(_STREAMS)
