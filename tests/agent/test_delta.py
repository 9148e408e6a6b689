"""The shadow's delta says what a device has still to do, and nothing else."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from edge_sdk.shadow import sections
from edge_sdk.shadow.models import CanaryVersion, DesiredModel
from tests.agent.releases import desired


@pytest.fixture
def delta(cloud):
    """What is desired of ``gate-7`` and not reported."""

    def read() -> dict:
        shadow = cloud.shadow("gate-7")
        return sections.delta(shadow.desired, shadow.reported.state).state

    return read


@pytest.mark.parametrize("fields", [{}, {"generation": 3}, {"allow_older": True}])
def test_a_version_that_runs_leaves_no_delta(device, cloud, bundles, delta, fields):
    here = device()
    cloud.desire("gate-7", {"lookup": desired(bundles["1"], **fields)})
    here.settle()
    assert delta() == {}


def test_a_version_on_trial_leaves_no_delta(device, cloud, bundles, delta):
    here = device()
    cloud.desire("gate-7", {"lookup": desired(bundles["1"])})
    here.settle()
    two = desired(bundles["2"])
    canary = CanaryVersion(ref=two.ref, digest=two.digest, version=two.version, percent=25)
    cloud.desire("gate-7", {"lookup": desired(bundles["1"], canary=canary)})
    here.settle()
    assert delta() == {}


def test_a_version_that_failed_stays_in_the_delta(device, cloud, bundles, delta):
    here = device()
    cloud.desire("gate-7", {"lookup": desired(bundles["1"])})
    here.settle()
    wrong: DesiredModel = desired(bundles["wrong"])
    cloud.desire("gate-7", {"lookup": wrong})
    here.settle()
    assert delta()["models"]["lookup"]["digest"] == wrong.digest


def test_the_same_bundle_wanted_from_elsewhere_is_here(device, cloud, bundles, delta):
    here = device()
    cloud.desire("gate-7", {"lookup": desired(bundles["1"])})
    here.settle()
    cloud.desire(
        "gate-7", {"lookup": replace(desired(bundles["1"]), ref="elsewhere.test/lookup:1")}
    )
    here.settle()
    assert delta() == {}
