"""Memory that only answers need goes back once nothing is asked for a while."""

from __future__ import annotations

import gc
import mmap
import threading
import weakref

import pytest

from edge_sdk.runtime import process
from edge_sdk.runtime.generation import idle
from edge_sdk.runtime.generation.idle import Idle


class Act:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.idle = Idle(self.act)

    def act(self) -> None:
        self.done.set()


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(idle, "SECONDS", 0.01)


def test_acts_once_nothing_happens(hasty):
    act = Act()
    act.idle.begin()
    assert act.done.wait(10)


def test_does_not_act_while_there_is_something_to_do(monkeypatch):
    monkeypatch.setattr(idle, "SECONDS", 3600)
    act = Act()
    timers = []
    for _ in range(2):  # again, and still one that waits
        act.idle.begin()
        timers.append(act.idle._timer)
    act.idle.end()
    for timer in timers:
        timer.join(10)
        assert not timer.is_alive()
    assert not act.done.is_set()


def test_waiting_keeps_nothing_alive(monkeypatch):
    monkeypatch.setattr(idle, "SECONDS", 3600)
    act = Act()
    act.idle.begin()
    timer = act.idle._timer
    gone = weakref.ref(act)
    del act
    gc.collect()
    assert gone() is None
    timer.cancel()


def test_an_idle_model_gives_memory_back_and_answers_as_before(load, hasty, monkeypatch):
    model = load()
    given_back = threading.Event()
    trim = process.trim

    def noted():
        trim()
        given_back.set()

    monkeypatch.setattr(process, "trim", noted)
    first = model.generate("hello", max_new_tokens=12, temperature=0.0).read()
    assert given_back.wait(10)
    given_back.clear()
    assert model.generate("hello", max_new_tokens=12, temperature=0.0).read() == first
    assert given_back.wait(10)  # and again
    model.close()


def test_left_pages_of_a_file_are_read_again(tmp_path):
    size = 64 * mmap.PAGESIZE
    (tmp_path / "rows").write_bytes(b"\7" * size)
    with (
        (tmp_path / "rows").open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
    ):
        ranges = process.read_no_more_than_asked({"rows"})
        assert [end - begin for begin, end in ranges] == [size]
        assert mapped[:] == b"\7" * size
        assert resident(f"{tmp_path}/rows") == size // 1024
        process.leave(ranges)
        assert resident(f"{tmp_path}/rows") == 0
        assert mapped[:] == b"\7" * size


def resident(path: str) -> int:
    """Resident KiB of a mapped file."""
    lines = iter((process.SELF / "smaps").read_text().splitlines())
    for line in lines:
        if line.endswith(path):
            return next(int(each.split()[1]) for each in lines if each.startswith("Rss:"))
    raise AssertionError("it is not mapped")
