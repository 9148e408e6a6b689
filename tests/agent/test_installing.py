"""From a wish in the cloud to a version that serves, in memory with real bundles and models."""

from __future__ import annotations

from tests.agent.releases import SHARED, desired


def test_a_wish_is_installed_served_and_reported(device, cloud, bundles):
    here = device()
    cloud.desire("gate-7", {"lookup": desired(bundles["1"])})
    here.settle()
    assert here.ask() == 4
    said = here.report.models["lookup"]
    assert (said.status, said.version) == ("running", "1.0.0")
    assert said.digest == said.wanted == bundles["1"].descriptor.digest
    assert said.fetched > SHARED
    assert here.report.agent.profile == "x86-64"
    assert [name for name, moment in here.steps if moment == "done"] == [
        "Fetch",
        "Verify",
        "Prepare",
        "Swap",
        "Collect",
    ]
