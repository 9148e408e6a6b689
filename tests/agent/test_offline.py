"""Away from the cloud for minutes or a month: it goes on serving, and comes back quietly."""

from __future__ import annotations

from pathlib import Path

from edge_sdk.agent.config import BrokerConfig, ReportConfig
from edge_sdk.bundle.store import Store
from edge_sdk.shadow.models import SHADOW, CanaryVersion
from edge_sdk.shadow.topics import ROOTS, Address
from tests.agent.releases import desired

DAY = 86_400
SPARING = ReportConfig(heartbeat=600, health=600)


def install(here, cloud, bundle) -> None:
    cloud.desire("gate-7", {"lookup": desired(bundle)})
    here.settle()


def test_a_month_offline(device, cloud, bundles):
    here = device(report=SPARING)
    install(here, cloud, bundles["1"])
    here.live(DAY)
    here.link.drop()
    kept = size_of(here.config_folder)
    turns = here.live(30 * DAY)
    assert turns < 10, "nothing to do, so it sleeps"
    assert here.ask() == 4
    assert size_of(here.config_folder) == kept, "what it keeps does not grow"
    for key in "23":
        cloud.desire("gate-7", {"lookup": desired(bundles[key])})
    cloud.updates.clear()
    here.link.restore()
    here.settle()
    assert here.ask() == 6, "straight to the newest"
    assert here.report.models["lookup"].version == "3.0.0"
    assert "2.0.0" not in str(cloud.updates)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_restart_without_network_serves_what_ran(device, cloud, bundles):
    here = device()
    install(here, cloud, bundles["1"])
    cloud.broker.stop()
    here.restart()
    here.settle()
    assert here.ask() == 4
    assert not here.link.connected


def test_a_canary_goes_on_after_a_restart_without_network(device, cloud, bundles, shelf):
    here = device()
    two = desired(bundles["2"])
    canary = CanaryVersion(ref=two.ref, digest=two.digest, version="2.0.0", percent=50)
    cloud.desire("gate-7", {"lookup": desired(bundles["1"], canary=canary)})
    here.settle()
    cloud.broker.stop()
    shelf.open = False
    here.restart()
    here.settle()
    assert sorted(here.ask() for _ in range(4)) == [4, 4, 5, 5]


def test_an_install_that_was_begun_goes_on_without_the_broker(device, cloud, bundles, shelf):
    here = device()
    install(here, cloud, bundles["1"])
    shelf.open = False
    install(here, cloud, bundles["2"])
    cloud.broker.stop()
    here.restart()
    shelf.open = True
    here.live(200)
    assert here.ask() == 5


def test_bundles_put_into_the_store_by_hand_are_served(device, cloud, bundles, tmp_path):
    Store(tmp_path / "gate-7").install(bundles["1"])
    Store(tmp_path / "gate-7").install(bundles["2"])
    cloud.broker.stop()
    here = device()
    here.settle()
    assert here.ask() == 5, "the newest"
    cloud.broker.start()
    cloud.desire("gate-7", {"other": desired(bundles["other"])})
    here.settle()
    assert here.ask() == 5, "what the cloud never asked for is not the cloud's to remove"
    assert here.report.models["lookup"].status == "running"


def test_presence_is_born_beats_and_ends_with_a_will(device, cloud):
    here = device()
    here.settle()
    born = cloud.presence("gate-7")
    assert born.online
    assert born.interval == here.config.report.heartbeat
    cloud.broker.published.clear()
    here.link.drop()
    gone = cloud.presence("gate-7")
    assert not gone.online
    assert gone.session == born.session
    here.link.restore()
    here.settle()
    again = cloud.presence("gate-7")
    assert again.online
    assert again.session != born.session
    here.agent.stop()
    assert not cloud.presence("gate-7").online


def test_a_service_that_does_not_answer_is_asked_again_patiently(device, cloud, bundles):
    here = device()
    cloud.answers = False
    here.live(3600)
    for_each_shadow = cloud.requests / 2
    assert 3600 / 130 < for_each_shadow < 3600 / 40
    cloud.answers = True
    here.live(200)
    install(here, cloud, bundles["1"])
    assert here.ask() == 4


def test_what_others_write_over_a_report_is_set_right(device, cloud, bundles):
    here = device()
    install(here, cloud, bundles["1"])
    lie = {"state": {"reported": {"models": {"lookup": {"version": "9"}, "ghost": {"a": 1}}}}}
    cloud.request(Address(ROOTS[0], "gate-7", SHADOW), "update", lie)
    here.settle()
    assert here.report.models["lookup"].version == "1.0.0"
    assert set(here.report.models) == {"lookup"}


def test_an_agent_lives_under_the_other_root_too(device, cloud, bundles):
    here = device(broker=BrokerConfig(url="mqtt://nowhere.test", shadow_root=ROOTS[1]))
    cloud.desire("gate-7", {"lookup": desired(bundles["1"])}, root=ROOTS[1])
    here.settle()
    assert cloud.reported("gate-7", ROOTS[1]).models["lookup"].status == "running"


def test_an_idle_agent_says_little(device, cloud, bundles):
    here = device(report=SPARING)
    install(here, cloud, bundles["1"])
    here.live(3600)
    cloud.updates.clear()
    here.live(DAY)
    assert len(cloud.updates) < 10, "uptime, ever more rarely"
