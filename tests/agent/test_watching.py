"""A new version that does badly is taken back on the device itself, whoever is reached."""

from __future__ import annotations

from contextlib import suppress

import pytest

from edge_sdk.agent.health_gate import Gate, judge
from edge_sdk.errors import EngineError
from edge_sdk.shadow.models import CanaryVersion
from tests.agent.releases import desired

HIGH = 5000  # a row that the fragile version does not have


def ask(here, row: int, times: int) -> None:
    for _ in range(times):
        with suppress(EngineError):
            here.ask(row)


@pytest.fixture
def fragile(device, cloud, bundles):
    """A device that has just swapped version 1 for one that fails for high rows."""
    here = device()
    for key in ("1", "fragile"):
        cloud.desire("gate-7", {"lookup": desired(bundles[key])})
        here.settle()
    assert here.report.models["lookup"].version == "5.0.0"
    return here


def test_errors_bring_the_old_version_back_and_are_reported(fragile):
    ask(fragile, HIGH, 5)
    fragile.live(3)
    assert fragile.ask(HIGH) == HIGH + 1
    said = fragile.report.models["lookup"]
    assert (said.status, said.version) == ("rolled_back", "1.0.0")
    assert said.error == "too many of its requests failed: 5 of 5"
    assert said.before.errors == 5, "how the bad one did"
    fragile.live(3600)
    assert fragile.done("RollBack") == 1
    assert fragile.report.models["lookup"].version == "1.0.0"


def test_it_is_taken_back_offline_and_reported_later(fragile, cloud):
    cloud.broker.stop()
    ask(fragile, HIGH, 5)
    fragile.live(3)
    assert fragile.ask(HIGH) == HIGH + 1
    assert fragile.report.models["lookup"].status == "running", "the cloud does not know yet"
    cloud.broker.start()
    fragile.settle()
    assert fragile.report.models["lookup"].status == "rolled_back"


def test_it_is_taken_back_after_a_restart_too(fragile):
    fragile.restart()
    fragile.settle()
    ask(fragile, HIGH, 5)
    fragile.live(3)
    assert fragile.report.models["lookup"].status == "rolled_back"


def test_a_restart_after_a_rollback_stays_on_the_old_version(fragile):
    ask(fragile, HIGH, 5)
    fragile.live(3)
    fragile.restart()
    fragile.settle()
    assert fragile.ask() == 4
    assert fragile.report.models["lookup"].status == "rolled_back"


def test_few_errors_among_many_requests_change_nothing(fragile):
    ask(fragile, 3, 50)
    ask(fragile, HIGH, 5)
    fragile.live(100)
    assert fragile.report.models["lookup"].version == "5.0.0"
    assert fragile.done("Confirm") == 1


def test_errors_after_the_watch_are_the_fleet_s_business(fragile):
    fragile.live(61)
    ask(fragile, HIGH, 50)
    fragile.live(10)
    said = fragile.report.models["lookup"]
    assert said.version == "5.0.0"
    assert said.health.errors == 50


def test_the_first_version_stays_for_want_of_another(device, cloud, bundles):
    here = device()
    cloud.desire("gate-7", {"lookup": desired(bundles["fragile"])})
    here.settle()
    ask(here, HIGH, 50)
    here.live(100)
    assert here.report.models["lookup"].status == "running"
    assert here.ask() == 8


def test_a_bad_canary_is_ended_and_the_version_stays(device, cloud, bundles):
    here = device()
    bad = desired(bundles["fragile"])
    canary = CanaryVersion(ref=bad.ref, digest=bad.digest, version=bad.version, percent=50)
    cloud.desire("gate-7", {"lookup": desired(bundles["1"], canary=canary)})
    here.settle()
    ask(here, HIGH, 20)
    here.live(3)
    assert [here.ask(HIGH) for _ in range(10)] == [HIGH + 1] * 10
    said = here.report.models["lookup"]
    assert (said.status, said.canary.status) == ("running", "rolled_back")
    assert said.canary.error == "too many of its requests failed: 10 of 10"
    here.live(600)
    assert here.done("StartCanary") == 1


@pytest.mark.parametrize(
    ("requests", "errors", "elapsed", "verdict"),
    [
        (0, 0, 0, None),
        (4, 4, 59, None),
        (5, 2, 1, "bad"),
        (5, 1, 1, None),
        (4, 4, 60, "good"),
        (100, 20, 60, "good"),
        (100, 21, 60, "bad"),
    ],
)
def test_verdict(requests, errors, elapsed, verdict):
    assert judge(Gate(), requests, errors, elapsed) == verdict


def test_health_is_reported_once_and_then_only_where_it_changes(device, cloud, bundles):
    here = device()
    cloud.desire("gate-7", {"lookup": desired(bundles["1"])})
    here.settle()
    for _ in range(120):  # two requests per second, for a minute
        here.ask()
        here.live(0.5)
    cloud.updates.clear()
    for _ in range(1200):
        here.ask()
        here.live(0.5)
    health = [u for u in cloud.updates if "health" in u.get("models", {}).get("lookup", {})]
    assert here.report.models["lookup"].health.requests == pytest.approx(120, rel=0.25)
    assert len(health) < 60, "latencies of microseconds are noisy, at most every 5 s even so"


def drift_of(here) -> float | None:
    with here.router.use("lookup") as served:
        return served.drift


@pytest.fixture
def shifted(device, cloud, bundles):
    """A device whose new version answers rows near zero with another sign or magnitude."""
    here = device()
    cloud.desire("gate-7", {"lookup": desired(bundles["1"])})
    here.settle()
    ask(here, 0, 60)
    cloud.desire("gate-7", {"lookup": desired(bundles["2"])})
    here.settle()
    return here


def test_drift_outlives_a_restart(shifted):
    ask(shifted, 0, 60)
    before = drift_of(shifted)
    assert before is not None
    assert before > 0.25
    shifted.restart()
    shifted.settle()
    assert drift_of(shifted) is None, "what this process has not seen yet says nothing"
    ask(shifted, 0, 60)
    assert drift_of(shifted) == before


def test_a_version_that_came_back_is_not_compared_with_the_bad_one(fragile):
    ask(fragile, HIGH, 60)
    fragile.live(3)
    assert fragile.report.models["lookup"].status == "rolled_back"
    ask(fragile, 0, 60)
    assert drift_of(fragile) is None, "it had answered nothing before"


def test_a_version_that_came_back_is_compared_with_itself(device, cloud, bundles):
    here = device()
    cloud.desire("gate-7", {"lookup": desired(bundles["1"])})
    here.settle()
    ask(here, 0, 60)
    cloud.desire("gate-7", {"lookup": desired(bundles["fragile"])})
    here.settle()
    ask(here, 3, 60)  # answers unlike those to row 0
    ask(here, HIGH, 60)
    here.live(3)
    assert here.done("RollBack") == 1
    for _ in range(2):
        ask(here, 0, 60)
        assert drift_of(here) == 0
        here.restart()
        here.settle()
