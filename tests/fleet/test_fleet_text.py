"""What people read of devices: what serves is told apart from what is to come or has failed."""

from __future__ import annotations

import pytest

from edge_sdk.cli import fleet_text
from edge_sdk.fleet.rollout.device import Device
from edge_sdk.fleet.views import device_view
from edge_sdk.shadow.models import CanaryVersion, DesiredModel, ReportedCanary, ReportedModel

NEW = DesiredModel(ref="hub/m:2.0.0", digest="new", version="2.0.0")
TRIAL = DesiredModel(
    ref="hub/m:1.0.0", digest="old", version="1.0.0",
    canary=CanaryVersion(ref="hub/m:2.0.0", digest="new", version="2.0.0", percent=5),
)  # fmt: skip


def old(**fields: object) -> ReportedModel:
    return ReportedModel(**{"version": "1.0.0", "digest": "old", "wanted": "new", **fields})


@pytest.mark.parametrize(
    ("desired", "reported", "text"),
    [
        (NEW, ReportedModel(version="2.0.0", digest="new", status="running"), "2.0.0 running"),
        (NEW, old(wanted="old", status="running"), "1.0.0 running + 2.0.0 asked for"),
        (NEW, old(status="downloading", progress=0.45), "1.0.0 running + 2.0.0 downloading 45%"),
        (NEW, old(status="failed"), "1.0.0 running + 2.0.0 failed"),
        (NEW, ReportedModel(wanted="new", status="failed"), "2.0.0 failed"),
        (TRIAL, old(status="failed"), "1.0.0 running"),  # it was taken back, and says so soon
        (
            TRIAL,
            old(
                wanted="old",
                canary=ReportedCanary(version="2.0.0", digest="new", status="running"),
            ),
            "1.0.0 running + 2.0.0 on trial",
        ),
        (None, old(status="running"), "1.0.0 running"),
        (None, ReportedModel(), "none absent"),
    ],
)
def test_a_device_s_model_in_a_few_words(desired, reported, text):
    device = Device(thing="gw-1", desired={"m": desired} if desired else {}, models={"m": reported})
    table = fleet_text.devices([device_view(device)])
    assert table.splitlines()[1].rpartition("  m ")[2].strip() == text
