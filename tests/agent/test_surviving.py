"""Power cuts, damaged files, a full disk, loads that kill the process: it converges anyway."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge_sdk.agent import loading, plan
from edge_sdk.agent.execute import ACTIONS
from edge_sdk.bundle.blobs import hex_of
from edge_sdk.bundle.store import Store
from edge_sdk.shadow.models import CanaryVersion
from tests.agent import releases
from tests.agent.releases import SHARED, desired
from tests.agent.world import Killed


@pytest.fixture
def running(device, cloud, bundles):
    """A device on which version 2 runs, and version 1 ran before."""
    here = device()
    for key in "12":
        install(here, cloud, bundles[key])
    here.live(100)
    return here


def install(here, cloud, bundle, **fields) -> None:
    cloud.desire("gate-7", {"lookup": desired(bundle, **fields)})
    here.settle()


def journal_of(here) -> Path:
    return here.config_folder / "journal.json"


def blob_of(here, bundle, largest: bool) -> Path:
    """The shared table, or the version's own weight, in the device's store."""
    weights = bundle.variants[0].record.graphs[0].weights
    chosen = max(weights, key=lambda w: w.size) if largest else min(weights, key=lambda w: w.size)
    return Path(here.config.store) / "blobs/sha256" / hex_of(chosen.digest)


@pytest.mark.parametrize("damage", ["torn", "empty", "gone", "garbage"])
def test_a_damaged_journal_is_made_again_of_the_store(running, cloud, shelf, damage):
    path = journal_of(running)
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"torn": data[:-7], "empty": b"", "garbage": b"x" * len(data)}[damage])
    before = shelf.bytes
    cloud.broker.stop()
    running.restart()
    running.settle()
    assert running.ask() == 5
    cloud.broker.start()
    running.settle()
    assert running.report.models["lookup"].status == "running"
    assert shelf.bytes == before


def test_a_damaged_weight_is_noticed_and_fetched_again(running, cloud, bundles, shelf):
    path = blob_of(running, bundles["2"], largest=False)
    path.chmod(0o644)
    path.write_bytes(b"\0" * path.stat().st_size)
    before = shelf.bytes
    running.restart()
    running.settle()
    assert running.ask() == 5
    assert 0 < shelf.bytes - before < SHARED / 20, "and nothing else"
    assert running.report.models["lookup"].status == "running"


def test_a_damaged_version_is_stood_in_for_by_the_one_before(running, cloud, bundles, shelf):
    path = blob_of(running, bundles["2"], largest=False)
    path.unlink()
    shelf.open = False
    cloud.broker.stop()
    running.restart()
    running.settle()
    assert running.ask() == 4
    shelf.open = True
    cloud.broker.start()
    running.live(130)
    assert running.ask() == 5
    assert running.report.models["lookup"].version == "2.0.0"


def test_a_damaged_weight_that_all_versions_share(running, cloud, bundles, shelf):
    path = blob_of(running, bundles["2"], largest=True)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.truncate(1000)
    running.restart()
    running.settle()
    assert running.ask() == 5


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_a_damaged_list_is_made_again_without_fetching_blobs(running, name, shelf):
    (Path(running.config.store) / name).write_bytes(b'{"schemaV')
    before = shelf.bytes
    running.restart()
    running.settle()
    assert running.ask() == 5
    assert shelf.bytes - before < 1000, "the image index; every blob was there"
    assert running.report.models["lookup"].status == "running"


def test_a_store_that_is_gone_is_filled_again(running, cloud):
    shutil.rmtree(running.config.store)
    running.restart()
    running.settle()
    assert running.ask() == 5


STEPS = ("Fetch", "Verify", "Prepare", "Swap", "Collect")


@pytest.mark.parametrize("moment", ["begin", "done"])
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_costs_nothing(device, cloud, bundles, shelf, step, moment):
    here = device()
    install(here, cloud, bundles["1"])
    before = shelf.bytes
    here.die_at = (step, moment)
    cloud.desire("gate-7", {"lookup": desired(bundles["2"])})
    with pytest.raises(Killed):
        here.settle()
    here.die_at = None
    here.kill()
    here.agent.tick()
    assert here.ask() in (4, 5), "what ran serves first of all"
    here.settle()
    assert here.ask() == 5
    assert here.report.models["lookup"].status == "running"
    assert shelf.bytes - before < SHARED / 20
    assert not list(Store(here.config.store).verify())


def test_a_version_that_kills_the_process_is_given_up(device, cloud, bundles, monkeypatch):
    here = device()
    install(here, cloud, bundles["1"])
    cloud.desire("gate-7", {"lookup": desired(bundles["2"])})
    with monkeypatch.context() as patch:
        deadly_load(patch, bundles["2"])
        for _ in range(3):
            with pytest.raises(Killed):
                here.settle()
            here.kill()
        here.settle()
    assert here.ask() == 4
    said = here.report.models["lookup"]
    assert said.status == "failed"
    assert "ended 3 times" in said.error
    install(here, cloud, bundles["2"], generation=1)
    assert here.ask() == 5, "asked for again, it is tried again"


def test_a_running_version_that_kills_the_process_gives_way(running, cloud, bundles, monkeypatch):
    with monkeypatch.context() as patch:
        deadly_load(patch, bundles["2"])
        for _ in range(3):
            running.kill()
            with pytest.raises(Killed):
                running.settle()
        running.kill()
        running.settle()
        assert running.ask() == 4
        assert running.report.models["lookup"].status == "failed"


def test_a_version_that_kills_the_process_while_it_is_new_gives_way(device, cloud, bundles):
    here = device()
    for key in "12":
        install(here, cloud, bundles[key])
    for _ in range(3):
        here.kill()
        here.settle()
        assert here.ask() == 5
    here.kill()
    here.settle()
    assert here.ask() == 4
    assert here.report.models["lookup"].status == "failed"
    assert "ended 3 times" in here.report.models["lookup"].error


def test_a_canary_that_kills_the_process_is_given_up(device, cloud, bundles):
    here = device()
    two = desired(bundles["2"])
    canary = CanaryVersion(ref=two.ref, digest=two.digest, version="2.0.0", percent=50)
    install(here, cloud, bundles["1"], canary=canary)
    for _ in range(3):
        assert {here.ask(), here.ask()} == {4, 5}
        here.kill()
        here.settle()
    assert {here.ask(), here.ask()} == {4}
    assert here.report.models["lookup"].status == "running"
    assert here.report.models["lookup"].canary.status == "failed"


def test_restarts_in_good_order_do_not_count(device, cloud, bundles):
    here = device()
    for key in "12":
        install(here, cloud, bundles[key])
    for _ in range(5):
        here.restart()
        here.settle()
        assert here.ask() == 5
    here.live(61)
    for _ in range(5):
        here.kill()
        here.settle()
        assert here.ask() == 5, "and kills after the watch count for nothing"


def test_what_is_prepared_in_vain_is_freed(device, cloud, bundles):
    here = device()
    install(here, cloud, bundles["1"])
    held = []
    here.die_at = ("Prepare", "done")
    here.on_death = lambda: held.extend(here.agent._executor._prepared.values())
    cloud.desire("gate-7", {"lookup": desired(bundles["2"])})
    with pytest.raises(Killed):
        here.settle()
    here.die_at = None
    install(here, cloud, bundles["1"])
    assert held[0].wait_closed(10)
    assert here.ask() == 4


def test_a_collection_spares_a_download_that_waits(device, cloud, bundles, shelf, tmp_path):
    here = device()
    install(here, cloud, bundles["1"])
    shelf.break_after = SHARED // 2
    new = releases.make(tmp_path / "new", "8.0.0", rows=releases.ROWS + 1)
    shelf.put(new)
    install(here, cloud, new)
    part = sum(path.stat().st_size for path in Path(here.config.store).glob("partial/*"))
    assert part > 0, "it broke off in the middle"
    shelf.break_after = None
    before = shelf.bytes
    cloud.desire("gate-7", {"other": desired(bundles["other"])})
    here.settle()
    here.live(130)
    assert here.ask() == 11
    assert shelf.bytes - before < SHARED * 2 - part + 20_000, "two downloads, one of them resumed"


def deadly_load(patch: pytest.MonkeyPatch, bundle) -> None:
    """Loading this bundle kills the process, as for want of memory."""
    plainly = loading.load_tested

    def load(store, entry, *options):
        if entry.bundle_digest == bundle.descriptor.digest:
            raise Killed
        return plainly(store, entry, *options)

    patch.setattr(loading, "load_tested", load)


def test_every_kind_of_step_is_performed_by_the_executor():
    steps = {*plan.Step.__subclasses__(), *plan.ToInstall.__subclasses__()} - {plan.ToInstall}
    assert set(ACTIONS) == steps


def test_a_version_that_does_not_fit_is_refused_with_numbers(device, cloud, bundles):
    here = device(memory_limit="50MiB")
    install(here, cloud, bundles["1"])
    said = here.report.models["lookup"]
    assert said.status == "failed"
    assert "predicted not to fit" in said.error
    assert "short by" in said.error


def test_models_share_the_memory_limit(device, cloud, bundles, monkeypatch):
    """Each is predicted to need 61 MiB; the kernel says that the first took 40."""
    readings = iter([100 << 20, 140 << 20])
    monkeypatch.setattr(loading.process, "anonymous", lambda: next(readings, 140 << 20))
    here = device(memory_limit="100MiB")
    install(here, cloud, bundles["1"])
    cloud.desire("gate-7", {"other": desired(bundles["other"])})
    here.settle()
    assert "predicted not to fit" in here.report.models["other"].error
    install(here, cloud, bundles["2"])
    assert here.ask() == 5, "what takes another's place has what that one had"
