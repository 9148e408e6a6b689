"""Rollouts that stay in force: devices that appear later get their version too."""

from __future__ import annotations

import msgspec
import pytest

from edge_sdk.fleet.rollout import operate
from edge_sdk.fleet.rollout.device import Device
from edge_sdk.fleet.rollout.late import in_force, join
from edge_sdk.shadow.models import ReportedModel
from tests.fleet.rollout_fleet import OLD, PLAN, Fleet

KEPT = msgspec.structs.replace(PLAN, keep=True, stages="100")


def completed(plan=KEPT, number=1):
    """A fleet of one device, on which the rollout is completed, and a newcomer."""
    fleet = Fleet({"gw-0": "good"}, plan)
    fleet.rollout = msgspec.structs.replace(fleet.rollout, id=number)
    fleet.run()
    fleet.kinds["new"] = "good"
    fleet.devices["new"] = Device(thing="new", online=True)
    return fleet


def joined(fleet, *standing, active=()):
    return {
        (event.rollout, event.thing)
        for decision in join(standing or (fleet.rollout,), active, fleet.devices, fleet.now)
        for event in decision.events
    }


def test_a_newcomer_is_asked_for_the_version_in_force():
    fleet = completed()
    [decision] = join((fleet.rollout,), (), fleet.devices, fleet.now)
    fleet.act(decision)
    fleet.step(seconds=3)
    assert fleet.devices["new"].models["m"].digest == PLAN.digest
    assert [member.answer for member in fleet.rollout.members] == ["done", "late"]
    assert fleet.rollout.status == "completed"
    assert not joined(fleet)


def test_a_rollback_takes_newcomers_back_too():
    fleet = completed()
    [decision] = join((fleet.rollout,), (), fleet.devices, fleet.now)
    fleet.act(decision)
    fleet.step(seconds=3)
    fleet.act(operate.rollback(fleet.rollout, fleet.devices, "ann", fleet.now))
    assert fleet.run().status == "rolled_back"
    assert fleet.devices["new"].desired == {}
    assert fleet.devices["gw-0"].desired["m"].digest == OLD.digest


@pytest.mark.parametrize(
    ("newcomer", "plan"),
    [
        (Device(thing="new", desired={"m": OLD}), KEPT),
        (Device(thing="new", models={"m": ReportedModel(version="9.0.0", digest="x")}), KEPT),
        (Device(thing="new"), msgspec.structs.replace(KEPT, selector="thing=gw-*")),
    ],
    ids=["has a wish", "runs a newer one", "is not meant"],
)
def test_a_newcomer_is_left_alone_that(newcomer, plan):
    fleet = completed(plan)
    fleet.devices["new"] = newcomer
    assert not joined(fleet)


def test_a_newcomer_of_a_rollout_under_way_is_left_to_it():
    fleet = completed()
    other = Fleet({"new": "silent"}, KEPT).rollout
    assert not joined(fleet, active=(other,))


def test_the_newest_rollout_in_force_goes_before():
    fleet = completed()
    newer = msgspec.structs.replace(fleet.rollout, id=2)
    assert joined(fleet, newer, fleet.rollout) == {(2, "new")}


def test_who_has_lost_the_wish_is_asked_again_after_a_while():
    """As a device that was forgotten and came back; and a shadow that refuses is not besieged."""
    fleet = completed()
    fleet.devices["gw-0"] = Device(thing="gw-0", online=True)
    fleet.devices.pop("new")
    assert not joined(fleet)
    fleet.now += 60
    [decision] = join((fleet.rollout,), (), fleet.devices, fleet.now)
    assert [member.thing for member in decision.rollout.members] == ["gw-0"]
    assert decision.rollout.members[0].before is None


def test_the_last_completed_rollout_to_a_selector_says_what_is_in_force():
    def ended(number, **changes):
        status = changes.pop("status", "completed")
        plan = msgspec.structs.replace(KEPT, **changes)
        return msgspec.structs.replace(completed().rollout, id=number, plan=plan, status=status)

    first, other = ended(1), ended(2, selector="label.site=berlin")
    assert in_force((other, first)) == (other, first)
    assert in_force((ended(3), first)) == (ended(3),)
    assert in_force((ended(3, keep=False), first)) == ()
    assert in_force((ended(3, status="rolled_back"), ended(2, status="aborted"), first)) == (first,)
