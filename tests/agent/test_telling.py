"""What happened on a device reaches the cloud, after a month and over restarts, once."""

from __future__ import annotations

import pytest

from edge_sdk.agent.config import ReportConfig
from edge_sdk.agent.health_gate import Gate
from edge_sdk.errors import EdgeSdkError
from edge_sdk.shadow.events import LATEST, accepted_topic
from edge_sdk.shadow.models import SHADOW, CanaryVersion
from edge_sdk.shadow.topics import ROOTS, Address
from edge_sdk.transport.link import Message
from tests.agent.releases import desired
from tests.agent.world import BEGIN, Killed

DAY = 86_400
SPARING = ReportConfig(heartbeat=600, health=600)
FIRST = [("started", ""), ("installed", "1.0.0")]


def install(here, cloud, bundle, **fields) -> None:
    cloud.desire("gate-7", {"lookup": desired(bundle, **fields)})
    here.settle()


def test_what_happens_is_told_as_it_happens(device, cloud, bundles):
    here = device()
    install(here, cloud, bundles["1"])
    install(here, cloud, bundles["wrong"])
    assert cloud.told("gate-7") == [*FIRST, ("failed", "4.0.0")]
    failed = cloud.events["gate-7"][-1]
    assert "golden value" in failed.error
    assert failed.digest == bundles["wrong"].descriptor.digest
    assert abs(failed.at - (BEGIN + here.clock())) < 60


def test_a_month_offline_is_told_with_its_times(device, cloud, bundles, shelf):
    """An install that was pending, a rollback and a death, on days that nobody saw."""
    gate = Gate(seconds=1000, min_requests=5, max_error_rate=0.2)
    here = device(report=SPARING, gate=gate)
    install(here, cloud, bundles["1"])
    shelf.open = False
    install(here, cloud, bundles["fragile"])
    cloud.broker.stop()
    here.live(DAY / 10)
    shelf.open = True
    came_at = BEGIN + here.clock()
    here.live(300)
    for _ in range(10):
        with pytest.raises(EdgeSdkError):
            here.ask(row=5000)
    here.live(10 * DAY)
    here.kill()
    died_at = BEGIN + here.clock()
    assert here.live(20 * DAY) < 10, "nothing to do, so it sleeps"
    assert cloud.told("gate-7") == FIRST, "nobody heard"
    cloud.broker.start()
    here.settle()
    assert cloud.told("gate-7") == [
        *FIRST, ("installed", "5.0.0"), ("rolled_back", "5.0.0"), ("started", ""),
    ]  # fmt: skip
    installed, back, died = cloud.events["gate-7"][2:]
    assert came_at <= installed.at < back.at <= came_at + 302
    assert "failed" in back.error
    assert (died.at, died.count) == (died_at, 1)
    here.live(DAY / 10)
    assert len(cloud.events["gate-7"]) == 5


def test_a_canary_is_told_of_once_and_to_its_end(device, cloud, bundles):
    here = device()
    two = desired(bundles["2"])
    canary = CanaryVersion(ref=two.ref, digest=two.digest, version="2.0.0", percent=50)
    install(here, cloud, bundles["1"], canary=canary)
    here.restart()
    here.settle()
    patch = {"state": {"desired": {"models": {"lookup": {"canary": None}}}}}
    cloud.request(Address(ROOTS[0], "gate-7", SHADOW), "update", patch)
    here.settle()
    assert cloud.told("gate-7") == [*FIRST, ("canary_started", "2.0.0"), ("canary_ended", "2.0.0")]
    cloud.desire("gate-7", {"lookup": None})
    here.settle()
    assert cloud.told("gate-7")[-1] == ("removed", "1.0.0")


def test_a_kill_between_the_journal_and_the_outbox_hides_nothing(device, cloud, bundles):
    here = device()
    install(here, cloud, bundles["1"])
    cloud.desire("gate-7", {"lookup": desired(bundles["2"])})
    swap = here.agent._executor._journal.change

    def dies(change) -> None:
        before = here.agent._executor.journal
        swap(change)
        running = here.agent._executor.journal.model("lookup").running
        if running != before.model("lookup").running:
            raise Killed

    here.agent._executor._journal.change = dies
    try:
        here.settle()
        raise AssertionError("it should have died")
    except Killed:
        here.kill()
    here.settle()
    assert cloud.told("gate-7")[2:] == [("started", ""), ("installed", "2.0.0")]


def test_a_service_that_knows_no_events_is_told_once_per_connection(device, cloud):
    here = device(report=SPARING)
    cloud.answers = False
    here.live(DAY / 4)
    assert len(cloud.batches) == 1
    here.link.drop()
    here.link.restore()
    here.live(DAY / 4)
    assert len(cloud.batches) == 2
    cloud.answers = True
    here.link.drop()
    here.link.restore()
    here.settle()
    assert cloud.told("gate-7") == [("started", "")]


def test_a_service_that_has_answered_is_asked_again_patiently(device, cloud, bundles):
    here = device(report=SPARING)
    install(here, cloud, bundles["1"])
    cloud.answers = False
    here.kill()
    cloud.batches.clear()
    here.live(DAY / 4)
    assert 6 <= len(cloud.batches) < 40, "hourly, after the first few"
    cloud.answers = True
    here.live(3600)
    assert cloud.told("gate-7") == [*FIRST, ("started", "")]


def test_an_answer_that_is_none_is_passed_over(device, cloud):
    here = device()
    here.settle()
    for payload in (b"", b"[]", b'{"epoch": 1}', b'{"epoch": "ff", "seq": 99}'):
        cloud.broker.publish(Message(accepted_topic("gate-7"), payload))
    here.settle()
    assert cloud.told("gate-7") == [("started", "")]


@pytest.mark.parametrize("begin", [-5.0, 0.0, 4_102_444_800.0, 1e12])
def test_a_clock_that_is_wrong_changes_nothing_but_dates(device, cloud, bundles, begin):
    """In 1970, in 2100, and out of its mind."""
    here = device()
    here.begin = begin
    here.restart()
    install(here, cloud, bundles["1"])
    assert here.ask() == 4
    assert ("installed", "1.0.0") in cloud.told("gate-7")
    last = cloud.events["gate-7"][-1]
    assert last.at == pytest.approx(min(begin + here.clock(), LATEST), abs=60)
    here.begin = BEGIN  # the network has told it
    install(here, cloud, bundles["2"])
    assert cloud.told("gate-7")[-1] == ("installed", "2.0.0")
    assert abs(cloud.events["gate-7"][-1].at - (BEGIN + here.clock())) < 60
