"""What is said of a model, and when figures are news."""

from __future__ import annotations

import pytest

from edge_sdk.agent import plan, reports
from edge_sdk.agent.journal import Failure, Journal, ModelEntry, Release
from edge_sdk.agent.plan import Serving, Target
from edge_sdk.agent.reports import Now, damped, damped_agent, reported
from edge_sdk.shadow.models import Desired, DesiredModel, Health, ReportedAgent

HEALTH = Health(requests=100, errors=2, p50_ms=10.0, p95_ms=20.0, drift=0.01, window_s=60)


@pytest.mark.parametrize(
    ("changes", "news"),
    [
        ({"requests": 110}, False),
        ({"requests": 150}, True),
        ({"errors": 3}, True),
        ({"p95_ms": 21.0}, False),
        ({"p95_ms": 25.0}, True),
        ({"p95_ms": None}, True),
        ({"drift": 0.02}, False),
        ({"drift": 0.3}, True),
        ({"window_s": 59.0}, False),
        ({"notes": ("served without",)}, True),
    ],
)
def test_health_is_news_where_a_figure_moves_beyond_noise(changes, news):
    now = Health(**{name: getattr(HEALTH, name) for name in Health.__struct_fields__} | changes)
    assert damped(HEALTH, now) == (now if news else HEALTH)


def test_health_that_ends_is_news():
    assert damped(HEALTH, None) is None
    assert damped(None, HEALTH) == HEALTH


def test_uptime_and_memory_are_news_where_they_have_changed_much():
    before = ReportedAgent(version="1", memory=100, uptime=1000)
    later = ReportedAgent(version="1", memory=105, uptime=1900)
    assert damped_agent(before, later) == before
    much = ReportedAgent(version="1", memory=120, uptime=2100)
    assert damped_agent(before, much) == much
    other = ReportedAgent(version="2", memory=105, uptime=1900)
    assert damped_agent(before, other).version == "2"


WISH = DesiredModel(ref="r/m:2", digest="new", version="2.0.0", generation=3)
OLD = Release(digest="old", version="1.0.0", ref="r/m:1")


def said(now: Now, **fields):
    journal = Journal(
        models={"m": ModelEntry(running=OLD, **fields)}, desired=Desired(models={"m": WISH})
    )
    return reported(journal, now)["m"]


@pytest.mark.parametrize(
    ("step", "status"),
    [
        (plan.Fetch, "downloading"),
        (plan.Verify, "verifying"),
        (plan.Prepare, "preparing"),
        (plan.Swap, "preparing"),
    ],
)
def test_a_step_is_a_status(step, status):
    target = Target("new", "2.0.0", "r/m:2", generation=3)
    found = said(Now(serving={"m": Serving("old")}, step=step("m", target)))
    assert (found.status, found.version, found.wanted, found.generation) == (
        status,
        "1.0.0",
        "new",
        3,
    )


def test_progress_is_said_in_steps_of_five_percent():
    target = Target("new", "2.0.0", "r/m:2", generation=3)
    now = Now(serving={"m": Serving("old")}, step=plan.Fetch("m", target), progress=0.4821)
    assert said(now).progress == 0.45


def test_a_failure_of_an_earlier_generation_is_history():
    failure = Failure(digest="new", generation=2, status="failed", error="x")
    assert said(Now(serving={"m": Serving("old")}), failures=(failure,)).status == "downloading"
    failure = Failure(digest="new", generation=3, status="rolled_back", error="x")
    found = said(Now(serving={"m": Serving("old")}), failures=(failure,))
    assert (found.status, found.error) == ("rolled_back", "x")


def test_what_waits_says_why():
    found = said(Now(serving={"m": Serving("old")}, problems={"m": "not reached"}))
    assert (found.status, found.error) == ("downloading", "not reached")


def test_every_step_of_an_install_has_a_status():
    assert set(reports._DURING) == set(plan.ToInstall.__subclasses__())
