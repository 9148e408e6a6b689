"""What is told of the difference between two journals."""

from __future__ import annotations

import pytest

from edge_sdk.agent import plan
from edge_sdk.agent.history import CRASH_SECONDS, Told, happened, of_step, started
from edge_sdk.agent.journal import Failure, Journal, ModelEntry, Release
from edge_sdk.shadow.events import Happening
from edge_sdk.shadow.models import CanaryVersion, Desired, DesiredModel

ONE, TWO, THREE = (Release(digest=f"sha256:{n}", version=f"{n}.0") for n in "123")
BACK = Failure(digest=TWO.digest, generation=0, status="rolled_back", error="many failed")
BROKEN = Failure(digest=TWO.digest, generation=0, status="failed", error="no room")


def wish(release, canary=None, **fields):
    trial = canary and CanaryVersion(
        ref="r", digest=canary.digest, version=canary.version, percent=9
    )
    model = DesiredModel(
        ref="r", digest=release.digest, version=release.version, canary=trial, **fields
    )
    return Desired(models={"m": model})


def journal(running=None, *failures, desired=None, previous=None):
    entry = ModelEntry(running=running, previous=previous, failures=failures)
    return Journal(models={"m": entry}, desired=desired)


def told(*steps):
    """What was told after a sequence of journals and news, and what the last one told."""
    known, events = Told(), ()
    for step in steps:
        now, *news = step if isinstance(step, tuple) else (step,)
        events, known = happened(known, now, news)
    return [(event.kind, event.version, event.error) for event in events]


def begun(release):
    return Happening(
        kind="canary_started", model="m", version=release.version, digest=release.digest
    )


TRIAL = wish(ONE, canary=TWO)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([journal()], []),
        ([journal(ONE)], [("installed", "1.0", "")]),
        ([journal(ONE), journal(ONE)], []),
        ([journal(ONE), journal(TWO, previous=ONE)], [("installed", "2.0", "")]),
        ([journal(TWO), journal(ONE, BACK)], [("rolled_back", "2.0", "many failed")]),
        ([journal(ONE), journal(ONE, BROKEN, desired=wish(TWO))], [("failed", "2.0", "no room")]),
        ([journal(ONE, BROKEN), journal(ONE, BROKEN)], []),
        (
            [journal(ONE, BROKEN), journal(ONE, Failure(digest=TWO.digest, generation=1,
             status="failed", error="again"))],
            [("failed", "", "again")],
        ),
        ([journal(ONE, BROKEN), journal(TWO)], [("installed", "2.0", "")]),
        ([journal(ONE), Journal()], [("removed", "1.0", "")]),
        ([(journal(ONE, desired=TRIAL), begun(TWO))],
         [("installed", "1.0", ""), ("canary_started", "2.0", "")]),
        ([(journal(ONE, desired=TRIAL), begun(TWO)), (journal(ONE, desired=TRIAL), begun(TWO))],
         []),
        ([(journal(ONE, desired=TRIAL), begun(TWO)), journal(ONE, desired=wish(ONE))],
         [("canary_ended", "2.0", "")]),
        ([(journal(ONE, desired=TRIAL), begun(TWO)),
          journal(TWO, desired=wish(TWO), previous=ONE)], [("installed", "2.0", "")]),
        ([(journal(ONE, desired=TRIAL), begun(TWO)), journal(ONE, BACK, desired=TRIAL)],
         [("rolled_back", "2.0", "many failed")]),
        ([(journal(ONE, desired=TRIAL), begun(TWO)),
          (journal(ONE, desired=wish(ONE, canary=THREE)), begun(THREE))],
         [("canary_ended", "2.0", ""), ("canary_started", "3.0", "")]),
    ],
)  # fmt: skip
def test_differences(steps, expected):
    assert told(*steps) == expected


def test_a_load_that_failed_is_told_where_it_is_not_mended_by_fetching():
    step = plan.Load("m", ONE)
    [event] = of_step(step, "failed", {ONE.digest: "too large"})
    assert (event.kind, event.version, event.error) == ("failed", "1.0", "too large")
    assert of_step(step, "failed", {}) == ()
    assert of_step(step, "done", {}) == ()


def test_an_end_in_good_order_is_no_news():
    first, known = started(Told(), 1e9)
    assert [event.kind for event in first] == ["started"]
    assert first[0].count == 0
    events, known = started(Told(begun=True, ended=True), 1e9)
    assert events == ()
    assert not known.ended


def test_a_process_that_keeps_dying_is_told_of_by_the_hour():
    _, known = started(Told(), 1e9)
    counts = []
    for number in range(1, 401):
        events, known = started(known, 1e9 + number * CRASH_SECONDS / 100)
        counts += [event.count for event in events]
    assert counts == [1, 100, 100, 100]


def test_a_clock_that_was_set_back_hides_no_death():
    known = Told(begun=True, crash_told=2e9)
    events, _ = started(known, 1e9)
    assert [event.count for event in events] == [1]
