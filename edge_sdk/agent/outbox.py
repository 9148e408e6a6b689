"""What happened and the server does not know yet: a bounded queue on the disk.

A file of lines, each with a checksum. What happens is appended and synced, with the state that
is told by it, so that one is never there without the other; a line that is torn counts as
never written. What was accepted is taken out by replacing the file. Numbers are not used again,
and what is not on the disk is not sent: so the server tells what it has from what is new.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from edge_sdk.agent.history import ROUTINE, Told, happened, started
from edge_sdk.agent.journal import Entry, Journal
from edge_sdk.bundle import files
from edge_sdk.errors import WorkError
from edge_sdk.shadow.events import LARGEST_BATCH, LATEST, Accepted, Batch, DeviceEvent, Happening

log = logging.getLogger(__name__)

MOST_EVENTS = 1000
MOST_BYTES = 256 * 1024
_ENVELOPE = 128  # bytes of a message around its events


class Line(Entry, frozen=True, kw_only=True):
    """One line of the file.

    Attributes:
        epoch: In the first line: which run of numbers this is.
        heard: In the first line: whether a server has ever accepted anything.
        seq: In the first line: the last number used.
        told: What has been told with this line, where that has changed.
        events: What happened.
    """

    epoch: str = ""
    heard: bool = False
    seq: int = 0
    told: Told | None = None
    events: tuple[DeviceEvent, ...] = ()


class Outbox:
    """The queue, in memory and on the disk. Safe to use from several threads.

    Args:
        path: The file.
        clock: Seconds since 1970.
        most_events: Events that are kept at most.
        most_bytes: Bytes of the file at most.

    Attributes:
        heard: Whether a server has ever accepted anything.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float],
        most_events: int = MOST_EVENTS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.path = path
        self.heard = False
        self._clock = clock
        self._most_events = most_events
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._epoch = ""
        self._seq = 0
        self._durable = 0
        self._told = Told()
        self._events: list[DeviceEvent] = []
        self._size = 0
        self._whole = False  # whether the file says all that is known

    def open(self, journal: Journal) -> None:
        """Reads the file, and notes what happened since it was written: this start, at least."""
        with self._lock:
            self._read()
            begun, told = started(self._told, self._now())
            found, told = happened(told, journal)
            self._keep((*begun, *found), told)

    def note(self, journal: Journal, news: Iterable[Happening] = ()) -> None:
        """Notes what has happened since the last time; it is on the disk when this returns.

        Where the disk refuses, it is kept in memory and written the next time.

        Args:
            journal: As it is now.
            news: What the journal does not have.
        """
        with self._lock:
            found, told = happened(self._told, journal, news)
            self._keep(found, told)

    def end(self) -> None:
        """Notes that the process ends in good order."""
        with self._lock:
            self._keep((), msgspec.structs.replace(self._told, ended=True))

    def pending(self, most_bytes: int = LARGEST_BATCH) -> Batch | None:
        """The oldest events, as many as a message has room for; ``None`` where there are none."""
        with self._lock:
            chosen: list[DeviceEvent] = []
            room = most_bytes - _ENVELOPE
            for event in self._events:
                room -= len(msgspec.json.encode(event)) + 1
                if event.seq > self._durable or (room < 0 and chosen):
                    break
                chosen.append(event)
            return Batch(epoch=self._epoch, events=tuple(chosen)) if chosen else None

    def accept(self, accepted: Accepted) -> bool:
        """Forgets what the server has written down; whether it was of this outbox."""
        with self._lock:
            if accepted.epoch != self._epoch:
                return False
            self.heard = True
            self._events = [event for event in self._events if event.seq > accepted.seq]
            self._rewrite()
            return True

    def _now(self) -> float:
        # A clock that is out of its mind must not make events that no service takes.
        return min(max(0.0, round(self._clock(), 3)), LATEST)

    def _stamped(self, one: Happening) -> DeviceEvent:
        self._seq += 1
        return DeviceEvent(seq=self._seq, at=self._now(), **msgspec.structs.asdict(one))

    def _keep(self, found: Iterable[Happening], told: Told) -> None:
        events = tuple(map(self._stamped, found))
        if not events and told == self._told and self._whole:
            return
        self._told = told
        self._events += events
        line = _encode(Line(told=told, events=events))
        full = len(self._events) > self._most_events or self._size + len(line) > self._most_bytes
        if full or not self._whole:
            self._shed()
            self._rewrite()
        else:
            self._append(line)

    def _shed(self) -> None:
        """Drops what there is no room for, and an eighth more: routine first, then the oldest."""
        sizes = {event.seq: len(_encode(Line(events=(event,)))) for event in self._events}
        size, count = sum(sizes.values()) + len(_encode(self._first())), len(sizes)
        if count <= self._most_events and size <= self._most_bytes * 7 // 8:
            return
        dropped: set[int] = set()
        for event in sorted(self._events, key=lambda event: (event.kind not in ROUTINE, event.seq)):
            if count < self._most_events * 7 // 8 and size <= self._most_bytes * 7 // 8:
                break
            dropped.add(event.seq)
            size, count = size - sizes[event.seq], count - 1
        lost = sum(event.kind != "dropped" for event in self._events if event.seq in dropped)
        self._told = msgspec.structs.replace(self._told, dropped=self._told.dropped + lost)
        self._events = [
            event for event in self._events if event.seq not in dropped and event.kind != "dropped"
        ]
        self._events.append(self._stamped(Happening(kind="dropped", count=self._told.dropped)))

    def _first(self) -> Line:
        return Line(epoch=self._epoch, heard=self.heard, seq=self._seq, told=self._told)

    def _append(self, line: bytes) -> None:
        try:
            with files.writing(self.path), self.path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except WorkError as error:
            self._refused(error)
        else:
            self._size += len(line)
            self._durable = self._seq

    def _rewrite(self) -> None:
        lines = [self._first(), *(Line(events=(event,)) for event in self._events)]
        data = b"".join(map(_encode, lines))
        try:
            with files.writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                files.replace(self.path, data, self.path.parent)
        except WorkError as error:
            self._refused(error)
        else:
            self._size, self._durable, self._whole = len(data), self._seq, True

    def _refused(self, error: WorkError) -> None:
        log.warning("what happened is not written down: %s", error)
        self._whole = False

    def _read(self) -> None:
        """Reads the lines that are whole; each of the others may have had a number."""
        damaged = 0
        for text in self._lines():
            line = _decode(text)
            if line is None:
                damaged += 1
                continue
            self._epoch = line.epoch or self._epoch
            self.heard = line.heard or self.heard
            self._told = line.told or self._told
            self._events += line.events
            self._seq = max(self._seq, line.seq, *(event.seq for event in line.events))
        if damaged:
            log.warning("%s: %d lines are torn or damaged", self.path, damaged)
        self._seq += damaged
        self._durable = self._seq
        self._size = sum(len(text) for text in self._lines())
        self._whole = bool(self._epoch) and not damaged
        self._epoch = self._epoch or secrets.token_hex(8)

    def _lines(self) -> list[bytes]:
        try:
            return self.path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            log.warning("%s cannot be read: %s", self.path, error.strerror)
            return []


def _encode(line: Line) -> bytes:
    body = msgspec.json.encode(line)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _decode(text: bytes) -> Line | None:
    checksum, _, body = text.removesuffix(b"\n").partition(b" ")
    if not text.endswith(b"\n") or b"%08x" % zlib.crc32(body) != checksum:
        return None
    try:
        return msgspec.json.decode(body, type=Line)
    except msgspec.DecodeError:
        return None
