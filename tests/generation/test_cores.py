from __future__ import annotations

import os

import pytest

from edge_sdk.runtime.generation import cores
from edge_sdk.runtime.generation.cores import (
    HOLD,
    TRIAL,
    Cores,
    Sample,
    free_cores,
    take_sample,
)


def test_own_work_leaves_all_cores_free():
    assert free_cores(Sample(0, 100, 50), Sample(2, 104, 54), cores=2) == 2


def test_neighbour_takes_what_it_uses():
    assert free_cores(Sample(0, 100, 50), Sample(2, 104, 52), cores=2) == 1


def test_counters_that_disagree_free_no_more_cores_than_there_are():
    assert free_cores(Sample(0, 100, 50), Sample(2, 101, 53), cores=4) == 4


class Clock:
    """Two cores, of which others use a given share, looked at every 0.6 seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.others = 0.0
        self.busy = 0.0
        monkeypatch.setattr(cores.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})

    def sample(self) -> Sample:
        return Sample(self.now, self.busy, 0.0)

    def wait(self, seconds: float = 0.6) -> None:
        self.now += seconds
        self.busy += self.others * seconds


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def tokens(found: Cores, count: int, seconds: dict[int, float]) -> list[int]:
    """Threads that some tokens are computed with, when a token takes so long with each."""
    used = []
    for _ in range(count):
        used.append(found.threads())
        found.took(used[-1], seconds[used[-1]])
    return used


def test_neighbour_that_slows_two_threads_down_leaves_one_until_it_goes(clock):
    found = Cores(2, clock.sample)
    assert tokens(found, 20, {2: 1.0}) == [2] * 20
    clock.others = 1.0
    clock.wait()
    busy = tokens(found, 10 * HOLD, {1: 1.5, 2: 3.0})
    assert busy[:TRIAL] == [1] * TRIAL
    assert busy.count(2) <= len(busy) * TRIAL / HOLD
    clock.others = 0.1
    clock.wait()
    assert tokens(found, 20, {2: 1.0}) == [2] * 20


def test_neighbour_that_yields_is_ignored(clock):
    """One of lower priority: the cores are busy, and still ours."""
    found = Cores(2, clock.sample)
    clock.others = 2.0
    clock.wait()
    used = tokens(found, 10 * HOLD, {1: 1.5, 2: 1.0})
    assert used.count(1) <= len(used) * TRIAL / HOLD


def test_trial_is_repeated(clock):
    found = Cores(2, clock.sample)
    clock.others = 2.0
    clock.wait()
    tokens(found, HOLD, {1: 1.5, 2: 1.0})
    assert tokens(found, 2 * HOLD, {1: 1.5, 2: 3.0})[-20:] == [1] * 20


def test_first_call_of_a_new_session_decides_nothing(clock):
    found = Cores(2, clock.sample)
    clock.others = 1.0
    clock.wait()
    found.took(found.threads(), 50.0)
    assert tokens(found, 30, {1: 1.5, 2: 3.0})[-10:] == [1] * 10


def test_nothing_is_concluded_from_a_glance_or_from_long_ago(clock):
    found = Cores(2, clock.sample)
    clock.others = 1.0
    clock.wait(0.1)
    assert found.threads() == 2
    clock.wait(60)
    assert found.threads() == 2
    clock.wait()
    assert found.threads() == 1


def test_kernel_without_figures_leaves_the_threads_alone():
    assert Cores(4, lambda: None).threads() == 4


@pytest.mark.skipif(not cores.STAT.exists(), reason="needs Linux")
def test_kernel_counts_what_this_process_does():
    before = take_sample()
    spent = os.times().user
    while os.times().user < spent + 0.2:
        pass
    after = take_sample()
    assert after.own - before.own >= 0.15
    assert after.everybody - before.everybody >= 0.15
