"""The queue on the disk: bounded, whole after any cut, and nothing told twice or never."""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.agent import outbox as module
from edge_sdk.agent.journal import Journal, ModelEntry, Release
from edge_sdk.agent.outbox import Outbox
from edge_sdk.bundle import files
from edge_sdk.shadow.events import LARGEST_BATCH, Accepted, Happening
from tests.agent.world import Killed

NOTHING = Journal()


def opened(path: Path, **options) -> Outbox:
    box = Outbox(path, clock=lambda: 1.7e9, **options)
    box.open(NOTHING)
    return box


def happening(number: int, kind: str = "failed") -> Happening:
    return Happening(kind=kind, model="m", version=str(number), error="it did not work")


def serving(number: int) -> Journal:
    release = Release(digest=f"sha256:{number}", version=str(number))
    return Journal(models={"m": ModelEntry(running=release)})


class Server:
    """Writes down as the fleet's server does."""

    def __init__(self) -> None:
        self.reached: dict[str, int] = {}
        self.written: list[str] = []

    def take(self, box: Outbox, *, answers: bool = True) -> bool:
        batch = box.pending()
        if batch is None:
            return False
        new = [e for e in batch.events if e.seq > self.reached.get(batch.epoch, -1)]
        self.written += [event.version for event in new if event.version]
        self.reached[batch.epoch] = last = batch.events[-1].seq
        if answers:
            box.accept(Accepted(epoch=batch.epoch, seq=last))
        return True

    def take_all(self, box: Outbox) -> None:
        while self.take(box):
            pass


def versions(box: Outbox) -> list[str]:
    batch = box.pending(most_bytes=2**30)
    return [event.version for event in batch.events] if batch else []


class Cut:
    """Ends the process in the middle of a write, at any byte of it.

    Attributes:
        at: Writes until then; ``None`` for never.
        share: Of the bytes of that write, as far as it comes.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: int | None = None
        self.share = 0.0
        self.fired = 0
        replace = files.replace
        monkeypatch.setattr(files, "replace", lambda *a: self._replace(replace, *a))
        monkeypatch.setattr(module.os, "fsync", self._synced)

    def _due(self) -> bool:
        if self.at is None:
            return False
        self.at -= 1
        if self.at >= 0:
            return False
        self.at, self.fired = None, self.fired + 1
        return True

    def _replace(self, replace, target, data, folder) -> None:
        if self._due():
            if self.share > 0.5:
                replace(target, data, folder)  # it was done, and nobody heard of it
            raise Killed
        at, self.at = self.at, None  # its own fsync is part of it
        replace(target, data, folder)
        self.at = at

    def _synced(self, descriptor: int) -> None:
        if self._due():
            path = Path(f"/proc/self/fd/{descriptor}").resolve()
            data = path.read_bytes()
            last = data.rstrip(b"\n").rfind(b"\n") + 1
            path.write_bytes(data[: last + int(self.share * (len(data) - last))])
            raise Killed


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["note", "serve"]), st.integers(1, 30)),
        st.just(("send", 0)),
        st.just(("lost answer", 0)),
        st.just(("restart", 0)),
        st.tuples(st.just("cut"), st.floats(0, 1)),
    ),
    max_size=40,
)


def test_what_was_noted_reaches_the_server_once(tmp_path_factory, monkeypatch):
    fired = 0

    @settings(max_examples=200)
    @given(actions=ACTIONS, first=st.integers(0, 1))
    def check(actions, first) -> None:
        nonlocal fired
        with monkeypatch.context() as patched:
            cut = Cut(patched)
            live(tmp_path_factory.mktemp("box") / "events.log", actions, cut, first)
            fired += cut.fired

    check()
    assert fired > 20


def live(path: Path, actions, cut: Cut, first: int) -> None:
    """The life of an outbox, and what has reached the server at its end."""
    box, server, journal = opened(path), Server(), NOTHING
    noted: list[str] = []
    unsure: set[str] = set()
    for number, (action, argument) in enumerate(actions):
        try:
            if action == "cut":
                cut.at, cut.share = first, argument
            elif action == "note":
                unsure.add(str(number))
                box.note(journal, [happening(number)])
                noted.append(str(number))
            elif action == "serve":
                journal = serving(number)  # written before the outbox hears of it
                noted.append(str(number))
                box.note(journal)
            elif action == "restart":
                raise Killed
            else:
                server.take(box, answers=action == "send")
        except Killed:
            cut.at = None
            box = Outbox(path, clock=lambda: 1.7e9)
            box.open(journal)
    cut.at = None
    server.take_all(box)
    assert len(server.written) == len(set(server.written)), "nothing comes twice"
    assert set(noted) <= set(server.written) <= unsure | set(noted)
    order = [version for version in server.written if version in noted]
    assert order == sorted(order, key=int)


def test_every_byte_of_a_cut_is_survived(tmp_path):
    path = tmp_path / "events.log"
    box = opened(path)
    for number in range(3):
        box.note(NOTHING, [happening(number)])
    data = path.read_bytes()
    last = data.rstrip(b"\n").rfind(b"\n") + 1
    for length in range(last, len(data)):
        path.write_bytes(data[:length])
        again = opened(path)
        assert versions(again)[:3] == ["", "0", "1"]
        again.note(NOTHING, [happening(9)])
        assert versions(opened(path))[-1] == "9", "what is appended after a torn line is whole"


def test_a_number_is_never_used_again(tmp_path):
    path = tmp_path / "events.log"
    server = Server()
    box = opened(path)
    box.note(NOTHING, [happening(1)])
    server.take_all(box)
    data = bytearray(path.read_bytes())
    box.note(NOTHING, [happening(2)])
    server.take(box, answers=False)
    damaged = bytearray(path.read_bytes())
    assert len(damaged) > len(data)
    damaged[-5] ^= 1  # the server has it, and the disk has lost it
    path.write_bytes(damaged)
    again = opened(path)
    again.note(NOTHING, [happening(3)])
    server.take_all(again)
    assert server.written == ["1", "2", "3"]


def test_another_store_is_another_epoch(tmp_path):
    server = Server()
    server.take_all(opened(tmp_path / "a"))
    box = opened(tmp_path / "b")
    box.note(NOTHING, [happening(1)])
    assert not box.accept(Accepted(epoch="0" * 16, seq=99))
    server.take_all(box)
    assert server.written == ["1"]
    assert len(server.reached) == 2


def test_there_is_a_bound_and_routine_goes_first(tmp_path):
    path = tmp_path / "events.log"
    box = opened(path, most_events=100, most_bytes=64 * 1024)
    box.note(NOTHING, [happening(0)])
    for number in range(1, 1000):
        box.note(NOTHING, [happening(number, "started")])
    batch = box.pending(most_bytes=2**30)
    assert batch
    assert len(batch.events) <= 100
    kept = [event for event in batch.events if event.kind == "started"]
    assert kept[-1].version == "999"
    assert "0" in versions(box), "what is not routine is kept"
    [dropped] = [event for event in batch.events if event.kind == "dropped"]
    assert dropped.count + len(kept) == 1000, "one of them the store's first start"
    again = opened(path, most_events=100, most_bytes=64 * 1024)
    assert versions(again) == [*versions(box), ""], "and that it died"


def test_the_file_has_a_bound(tmp_path):
    path = tmp_path / "events.log"
    box = opened(path, most_events=10_000, most_bytes=16 * 1024)
    largest = 0
    for number in range(500):
        box.note(serving(number), [happening(number)])
        largest = max(largest, path.stat().st_size)
    assert 8 * 1024 < largest <= 16 * 1024
    batch = box.pending(most_bytes=2**30)
    assert batch
    [dropped] = [event for event in batch.events if event.kind == "dropped"]
    assert dropped.count + len(batch.events) - 1 == 1001


def test_events_that_were_dropped_are_counted_over_the_whole_epoch(tmp_path):
    path = tmp_path / "events.log"
    server, counts = Server(), []
    box = opened(path, most_events=10)
    for number in range(60):
        box.note(NOTHING, [happening(number)])
        if number % 20 == 19:
            batch = box.pending()
            assert batch
            counts += [event.count for event in batch.events if event.kind == "dropped"]
            server.take_all(box)
    assert counts == sorted(set(counts))
    assert counts[-1] == 61 - len(server.written)


def test_a_message_has_a_bound(tmp_path):
    box = opened(tmp_path / "events.log")
    for number in range(300):
        box.note(NOTHING, [Happening(kind="failed", version=str(number), error="é" * 240)])
    server, rounds = Server(), 0
    while batch := box.pending():
        assert len(msgspec.json.encode(batch)) <= LARGEST_BATCH
        server.take(box)
        rounds += 1
    assert len(server.written) == 300
    assert rounds < 10


def test_what_the_disk_refuses_is_not_sent_before_it_is_written(tmp_path, monkeypatch):
    path = tmp_path / "events.log"
    box = opened(path)
    Server().take_all(box)
    refused = []

    def full(_: int) -> None:
        refused.append(True)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "fsync", full)
        box.note(NOTHING, [happening(1)])
        box.note(NOTHING, [happening(2)])
        assert len(refused) == 2
        assert box.pending() is None
    box.note(NOTHING, [happening(3)])
    assert versions(box) == ["1", "2", "3"]
    assert versions(opened(path))[:3] == ["1", "2", "3"]


def test_an_unreadable_file_begins_a_new_epoch(tmp_path):
    path = tmp_path / "events.log"
    first = opened(path).pending()
    path.write_bytes(b"\0\xff\r\n garbage")
    second = opened(path).pending()
    assert first
    assert second
    assert first.epoch != second.epoch


def test_a_process_that_ends_in_good_order_says_nothing_at_the_next_start(tmp_path):
    path = tmp_path / "events.log"
    box = opened(path)
    Server().take_all(box)
    box.end()
    assert opened(path).pending() is None
    [died] = opened(path).pending().events
    assert (died.kind, died.count) == ("started", 1)
