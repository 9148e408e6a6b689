"""Selectors, stages, gates and the order of devices."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.errors import AdmissionError, ConfigError
from edge_sdk.fleet.rollout.device import Device
from edge_sdk.fleet.rollout.gates import Gates, changed
from edge_sdk.fleet.rollout.layout import lay_out
from edge_sdk.fleet.rollout.selector import Selector
from edge_sdk.fleet.rollout.stages import Stages
from edge_sdk.fleet.rollout.state import Member, shadow_update, wanted
from edge_sdk.shadow.models import CanaryVersion, DesiredModel, ReportedAgent, ReportedModel
from tests.fleet.rollout_fleet import OLD, PLAN

DEVICE = Device(
    thing="gw-7",
    online=True,
    assigned={"site": "berlin"},
    agent=ReportedAgent(profile="arm64-v8.2", labels={"site": "unset", "line": "3"}),
)


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("all", True),
        (" all ", True),
        ("thing=gw-7", True),
        ("thing=gw-1,gw-7", True),
        ("thing=gw-?", True),
        ("thing=gw", False),
        ("thing!=gw-7", False),
        ("profile=arm64*", True),
        ("profile=x86-64", False),
        ("label.site=berlin", True),
        ("label.site=unset", False),
        ("label.line=3", True),
        ("label.nothing=*", False),
        ("label.nothing!=x", True),
        ("label.site=berlin and profile=arm64*", True),
        ("label.site=berlin and profile=x86-64", False),
        ("label.site=hamburg,ber* and thing!=gw-1,gw-2 and profile=*", True),
    ],
)
def test_a_selector_means_what_it_says(selector, matches):
    assert Selector.parse(selector).matches(DEVICE) == matches


@pytest.mark.parametrize(
    "text",
    ["", "gw-7", "all and thing=a", "thing=", "thing=a,", "thing=a,label.site=b",
     "thing=a;profile=b",
     "thing = a", "label.=a", "site=berlin", "thing=a and", "thing=[ab]", "thing=a or thing=b"],
)  # fmt: skip
def test_half_a_selector_is_refused(text):
    with pytest.raises(ConfigError, match="no condition of a selector"):
        Selector.parse(text)


def test_stages_are_percents_or_a_rate():
    assert Stages.parse("5,25,100").percents == (5.0, 25.0, 100.0)
    assert Stages.parse("10/min").rate == pytest.approx(1 / 6)
    assert Stages.parse("2/s").rate == 2.0
    assert Stages.parse("90/h").rate == 0.025


@pytest.mark.parametrize(
    "text", ["", "5,25", "25,5,100", "5,5,100", "0,100", "-5,100", "nan,100", "0/min", "10/day"]
)
def test_other_stages_are_refused(text):
    with pytest.raises(ConfigError, match="no stages"):
        Stages.parse(text)


@given(st.integers(1, 5000), st.lists(st.floats(0.01, 99.9), max_size=5, unique=True).map(sorted))
def test_every_stage_adds_a_device_and_the_last_has_all(devices, percents):
    sizes = Stages((*percents, 100.0)).sizes(devices)
    assert sizes[-1] == devices
    assert all(low < high for low, high in zip((0, *sizes), sizes, strict=False))


def test_gates_are_changed_by_name():
    gates = changed(Gates(), ["max_failed=0.2", "max_drift=0.25", "max_p95_ratio=none", "soak_s=5"])
    assert gates == Gates(max_failed=0.2, max_drift=0.25, max_p95_ratio=None, soak_s=5.0)


@pytest.mark.parametrize(
    "setting",
    ["max_faild=0.1", "max_failed", "max_failed=many", "max_failed=2", "max_failed=none",
     "max_failed=nan", "min_devices=0", "soak_s=-1"],
)  # fmt: skip
def test_other_gates_are_refused(setting):
    with pytest.raises(ConfigError):
        changed(Gates(), [setting])


def test_devices_online_are_asked_first_and_the_order_differs_from_version_to_version():
    devices = {f"gw-{n}": Device(thing=f"gw-{n}", online=n % 2 == 0) for n in range(40)}
    first = lay_out(PLAN, devices).members
    assert [devices[m.thing].online for m in first] == [True] * 20 + [False] * 20
    assert [m.stage for m in first] == [0] * 2 + [1] * 8 + [2] * 30
    assert lay_out(PLAN, devices).members == first
    other = msgspec.structs.replace(PLAN, digest="sha256:other")
    assert [m.thing for m in lay_out(other, devices).members] != [m.thing for m in first]


def test_the_layout_says_who_is_offline_or_has_no_variant():
    layout = lay_out(PLAN, {"gw-7": msgspec.structs.replace(DEVICE, online=False)}, ["x86-64"])
    assert layout.notes == (
        "offline now: gw-7",
        "the bundle has no variant for the profile of: gw-7",
    )


@pytest.mark.parametrize("field", ["desired", "models"])
def test_an_older_version_needs_the_word(field):
    newer = {
        "desired": DesiredModel(ref="r", digest="d", version="2.0.1"),
        "models": ReportedModel(version="2.0.1", digest="d"),
    }
    devices = {"gw-7": msgspec.structs.replace(DEVICE, **{field: {"m": newer[field]}})}
    with pytest.raises(AdmissionError, match="older than what these have: gw-7"):
        lay_out(PLAN, devices)
    allowed = msgspec.structs.replace(PLAN, allow_older=True)
    assert lay_out(allowed, devices).members


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"canary": 100}, "canary"),
        ({"canary": 0}, "canary"),
        ({"canary": 10, "stages": "10/min"}, "stages"),
        ({"approve": True, "stages": "100"}, "approve"),
        ({"approve": True, "stages": "10/min"}, "approve"),
    ],
)
def test_options_that_do_not_go_together_are_refused(changes, where):
    with pytest.raises(ConfigError) as caught:
        lay_out(msgspec.structs.replace(PLAN, **changes), {"gw-7": DEVICE})
    assert caught.value.where == where


def test_a_selector_that_meets_nobody_is_refused():
    with pytest.raises(ConfigError, match="matches no device; 1 are known"):
        lay_out(msgspec.structs.replace(PLAN, selector="thing=other"), {"gw-7": DEVICE})


def test_an_update_takes_away_what_the_wish_does_not_have():
    before = msgspec.structs.replace(
        OLD, canary=CanaryVersion(ref="r", digest="d", version="9", percent=5), generation=3
    )
    member = Member(thing="gw-7", stage=0, wish="full", before=before)
    update = json.loads(shadow_update("m", wanted(member, PLAN)))
    assert update == {"state": {"desired": {"models": {"m": {
        "ref": PLAN.ref, "digest": PLAN.digest, "version": PLAN.version,
        "canary": None, "allow_older": None, "generation": None,
    }}}}}  # fmt: skip


def test_a_device_that_had_nothing_gets_the_model_taken_away():
    member = Member(thing="gw-7", stage=0, wish="back")
    update = json.loads(shadow_update("m", wanted(member, PLAN)))
    assert update == {"state": {"desired": {"models": {"m": None}}}}


def test_asking_a_server_needs_no_part_of_one():
    """A workstation without the [fleet] extra has urllib3 and msgspec."""
    program = (
        "import sys, edge_sdk.cli.fleet, edge_sdk.cli.fleet_text, edge_sdk.fleet.client;"
        "sys.exit(bool({'sqlalchemy', 'starlette', 'numpy', 'paho'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
