"""From a wish in the cloud to a version that serves, in memory with real bundles and models."""

from __future__ import annotations

import msgspec
import onnxruntime
import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.errors import NotServedError
from edge_sdk.runtime.prepared.packing import TESTED
from edge_sdk.shadow.models import SHADOW, CanaryVersion, ReportedModel
from edge_sdk.shadow.topics import ROOTS, Address
from tests.agent.releases import SHARED, desired
from tests.generation import tiny

ADDRESS = Address(ROOTS[0], "gate-7", SHADOW)


def wish(cloud, bundle, **fields) -> None:
    cloud.desire("gate-7", {"lookup": desired(bundle, **fields)})


@pytest.fixture
def running(device, cloud, bundles):
    """A device on which version 1 runs."""
    here = device()
    wish(cloud, bundles["1"])
    here.settle()
    assert here.ask() == 4
    return here


def said(here) -> ReportedModel:
    return here.report.models["lookup"]


def test_a_wish_is_installed_served_and_reported(device, cloud, bundles):
    here = device()
    wish(cloud, bundles["1"])
    here.settle()
    assert here.ask() == 4
    assert (said(here).status, said(here).version) == ("running", "1.0.0")
    assert said(here).digest == said(here).wanted == bundles["1"].descriptor.digest
    assert said(here).fetched > SHARED
    assert here.report.agent.profile == "x86-64"
    done = [name for name, moment in here.steps if moment == "done"]
    assert done == ["Fetch", "Verify", "Prepare", "Swap", "Collect"]


def test_an_update_fetches_only_what_it_lacks(running, cloud, bundles, shelf):
    before = shelf.bytes
    wish(cloud, bundles["2"])
    running.settle()
    assert running.ask() == 5
    assert shelf.bytes - before < SHARED / 20
    assert said(running).fetched == shelf.bytes - before


def test_the_version_before_is_kept_and_older_ones_go(running, cloud, bundles):
    for key in "23":
        wish(cloud, bundles[key])
        running.settle()
    names = {entry.version for entry in Store(running.config.store).ls()}
    assert names == {"2.0.0", "3.0.0"}


def test_going_back_costs_no_download(running, cloud, bundles, shelf):
    wish(cloud, bundles["2"])
    running.settle()
    before = shelf.bytes
    wish(cloud, bundles["1"], allow_older=True)
    running.settle()
    assert running.ask() == 4
    assert shelf.bytes == before
    assert said(running).fetched == 0


def test_an_older_version_is_refused_before_anything_is_fetched(running, cloud, bundles, shelf):
    wish(cloud, bundles["2"])
    running.settle()
    running.live(100)
    wish(cloud, bundles["1"])
    running.settle()
    assert running.ask() == 5
    assert said(running).status == "failed"
    assert "older than 2.0.0" in said(running).error
    wish(cloud, bundles["other"])
    before = shelf.bytes
    running.settle()
    assert said(running).status == "failed"
    assert shelf.bytes == before


def test_a_broken_version_leaves_the_old_one_serving_and_says_why(running, cloud, bundles):
    wish(cloud, bundles["wrong"])
    running.settle()
    assert running.ask() == 4
    assert (said(running).status, said(running).version) == ("failed", "1.0.0")
    assert "golden value" in said(running).error
    assert said(running).wanted == bundles["wrong"].descriptor.digest
    tried = running.steps.count(("Prepare", "begin"))
    running.live(3600)
    assert running.steps.count(("Prepare", "begin")) == tried, "it must not be tried again"
    assert {entry.version for entry in Store(running.config.store).ls()} == {"1.0.0"}


def test_what_failed_is_tried_again_in_another_generation(running, cloud, bundles):
    wish(cloud, bundles["wrong"])
    running.settle()
    wish(cloud, bundles["wrong"], generation=1)
    running.settle()
    assert running.steps.count(("Prepare", "failed")) == 2
    assert said(running).generation == 1


def test_a_version_is_what_it_was_asked_for_to_be(running, cloud, bundles):
    model = msgspec.structs.replace(desired(bundles["2"]), version="2.5.0")
    cloud.desire("gate-7", {"lookup": model})
    running.settle()
    assert running.ask() == 4
    assert "calls itself 2.0.0" in said(running).error


def test_another_bundle_of_a_version_in_use_is_refused(running, cloud, bundles):
    wish(cloud, bundles["again"])
    running.settle()
    assert running.ask() == 4
    assert "another bundle that is lookup 1.0.0" in said(running).error
    assert Store(running.config.store).open("lookup", "1.0.0")


def test_a_bundle_without_this_profile_fails(running, cloud, bundles):
    wish(cloud, bundles["arm"])
    running.settle()
    assert said(running).status == "failed"
    assert "arm64" in said(running).error or "x86-64" in said(running).error


def test_only_the_profile_s_variant_is_fetched(running, cloud, bundles):
    wish(cloud, bundles["both"])
    running.settle()
    assert running.ask() == 10
    assert said(running).digest == bundles["both"].descriptor.digest
    opened = Store(running.config.store).open("lookup", "7.0.0")
    assert [variant.profile for variant in opened.variants] == ["x86-64"]


def test_a_missing_bundle_fails_at_once(running, cloud, bundles):
    gone = msgspec.structs.replace(desired(bundles["2"]), digest="sha256:" + "0" * 64)
    cloud.desire("gate-7", {"lookup": gone})
    running.settle()
    assert (said(running).status, said(running).error) == (
        "failed",
        f"shelf.test/lookup@sha256:{'0' * 64}: no such bundle",
    )


def test_a_first_bundle_that_cannot_come_leaves_nothing_to_collect(device, cloud, bundles):
    here = device()
    missing = msgspec.structs.replace(desired(bundles["1"]), digest=f"sha256:{0:064x}")
    cloud.desire("gate-7", {"lookup": missing})
    here.settle()
    assert said(here).status == "failed"
    assert here.steps[-1] == ("Collect", "done")


def test_a_reference_that_is_none_fails(running, cloud, bundles):
    model = msgspec.structs.replace(desired(bundles["2"]), ref="nonsense")
    cloud.desire("gate-7", {"lookup": model})
    running.settle()
    assert "nonsense" in said(running).error


def test_a_model_that_is_not_desired_any_more_is_removed(running, cloud, bundles):
    cloud.desire("gate-7", {"other": desired(bundles["other"])})
    running.settle()
    assert running.ask(name="other") == 4
    cloud.desire("gate-7", {"lookup": None})
    running.settle()
    with pytest.raises(NotServedError):
        running.ask()
    assert running.ask(name="other") == 4
    assert set(running.report.models) == {"other"}
    assert {entry.name for entry in Store(running.config.store).ls()} == {"other"}


def test_a_shadow_that_is_gone_takes_nothing_away(running, cloud):
    running.cloud.request(ADDRESS, "delete", {})
    running.settle()
    running.live(60)
    assert running.ask() == 4
    assert said(running).status == "running", "and the agent says again what runs"


def test_a_newer_wish_replaces_one_that_waits(running, cloud, bundles, shelf):
    shelf.open = False
    wish(cloud, bundles["2"])
    running.settle()
    assert said(running).status == "downloading"
    assert "not reached" in said(running).error
    shelf.open = True
    wish(cloud, bundles["3"])
    running.settle()
    assert running.ask() == 6
    assert ("Swap", "done") in running.steps
    assert "2.0.0" not in {entry.version for entry in Store(running.config.store).ls()}


def test_downloads_that_fail_are_tried_again_ever_more_rarely(running, cloud, bundles, shelf):
    shelf.open = False
    wish(cloud, bundles["2"])
    running.live(3600)
    tried = running.steps.count(("Fetch", "waits"))
    assert 3600 / 120 < tried < 3600 / 40, "delays grow to two minutes, with jitter"
    assert running.ask() == 4
    shelf.open = True
    running.live(121)
    assert running.ask() == 5


def test_a_canary_answers_its_share_and_becomes_the_version(running, cloud, bundles, shelf):
    two = desired(bundles["2"])
    canary = CanaryVersion(ref=two.ref, digest=two.digest, version=two.version, percent=25)
    wish(cloud, bundles["1"], canary=canary)
    running.settle()
    answers = [running.ask() for _ in range(100)]
    assert (answers.count(4), answers.count(5)) == (75, 25)
    assert said(running).canary.status == "running"
    assert said(running).version == "1.0.0"
    before = shelf.bytes
    cloud.desire("gate-7", {"lookup": None})
    cloud.desire("gate-7", {"lookup": two})
    running.settle()
    assert running.ask() == 5
    assert shelf.bytes == before
    assert said(running).canary is None


def test_a_canary_s_share_changes_without_a_load(running, cloud, bundles):
    two = desired(bundles["2"])
    for percent in (10, 50):
        canary = CanaryVersion(ref=two.ref, digest=two.digest, version="2.0.0", percent=percent)
        wish(cloud, bundles["1"], canary=canary)
        running.settle()
    assert [running.ask() for _ in range(10)].count(5) == 5
    assert running.done("Prepare") == 2


def test_a_canary_that_is_called_off_is_gone(running, cloud, bundles):
    two = desired(bundles["2"])
    canary = CanaryVersion(ref=two.ref, digest=two.digest, version="2.0.0", percent=50)
    wish(cloud, bundles["1"], canary=canary)
    running.settle()
    cloud.request(
        ADDRESS,
        "update",
        {"state": {"desired": {"models": {"lookup": {"canary": None}}}}},
    )
    running.settle()
    assert {running.ask() for _ in range(10)} == {4}
    assert said(running).canary is None
    assert {entry.version for entry in Store(running.config.store).ls()} == {"1.0.0"}


def test_a_broken_canary_fails_alone(running, cloud, bundles):
    bad = desired(bundles["wrong"])
    canary = CanaryVersion(ref=bad.ref, digest=bad.digest, version=bad.version, percent=50)
    wish(cloud, bundles["1"], canary=canary)
    running.settle()
    assert {running.ask() for _ in range(10)} == {4}
    assert said(running).status == "running"
    assert said(running).canary.status == "failed"
    assert "golden" in said(running).canary.error


@pytest.mark.skipif(
    onnxruntime.__version__ not in TESTED, reason="weights of this onnxruntime are not packed"
)
def test_a_dialogue_model_is_packed_for_this_cpu_once(device, cloud, shelf, tmp_path):
    bundle = open_bundle(tiny.bundle(tmp_path / "tiny", golden=True, profile="x86-64"))
    shelf.put(bundle)
    here = device()
    cloud.desire("gate-7", {"assistant": desired(bundle)})
    here.settle()
    packed = {path: path.stat().st_mtime_ns for path in tmp_path.glob("gate-7/prepared/*/*/*")}
    assert packed
    for _ in range(2):
        with here.router.use("assistant") as served:
            text = served.model.generate("hello", max_new_tokens=4, seed=1).read()
        assert text
        here.restart()
        here.settle()
    assert packed == {
        path: path.stat().st_mtime_ns for path in tmp_path.glob("gate-7/prepared/*/*/*")
    }


@pytest.mark.parametrize("model", [5, [], {"digest": 1}, {"canary": {"percent": 10}}])
def test_a_wish_that_cannot_be_read_changes_nothing_and_is_said(running, cloud, bundles, model):
    cloud.desire("gate-7", {"other": desired(bundles["other"])})
    cloud.request(ADDRESS, "update", {"state": {"desired": {"models": {"lookup": model}}}})
    running.settle()
    assert running.ask() == running.ask(name="other") == 4
    assert said(running).status == "failed"
    assert "cannot be read" in said(running).error
    cloud.desire("gate-7", {"lookup": None})
    wish(cloud, bundles["2"])
    running.settle()
    assert (said(running).status, said(running).error) == ("running", None)
