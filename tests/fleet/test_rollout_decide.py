"""Rollouts over simulated fleets: what is reached, what is broken off, what is waited for."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.errors import FleetError
from edge_sdk.fleet.rollout import operate
from edge_sdk.fleet.rollout.decide import decide
from edge_sdk.fleet.rollout.gates import Gates, breaches
from edge_sdk.fleet.rollout.state import ENDED, Plan, Rollout
from edge_sdk.shadow.models import Health
from tests.fleet.rollout_fleet import HARMFUL, OLD, PLAN, WELL, Fleet, Kind

GATES = Gates(soak_s=5, max_wait_s=60)


def plan(**changes: object) -> Plan:
    return msgspec.structs.replace(PLAN, **{"gates": GATES, **changes})


def all_good(number: int) -> dict[str, Kind]:
    return {f"gw-{n}": "good" for n in range(number)}


def test_a_good_version_reaches_everybody_stage_by_stage():
    fleet = Fleet(all_good(40), plan(stages="5,25,100"))
    rollout = fleet.run()
    assert rollout.status == "completed"
    assert fleet.having() == set(fleet.devices)
    assert sorted(set(fleet.most_asked)) == [2, 10, 40]
    assert fleet.kinds_of_events() == ["rollout.stage"] * 3 + ["rollout.completed"]


def test_every_stage_soaks():
    fleet = Fleet(all_good(10), plan(stages="10,100", gates=GATES))
    fleet.run(lambda rollout: rollout.settled_at is not None)
    began = fleet.now
    fleet.run(lambda rollout: rollout.stage == 1)
    assert fleet.now - began == GATES.soak_s


def test_a_version_that_fails_its_self_test_is_taken_back_after_the_first_stage():
    fleet = Fleet(dict.fromkeys(all_good(40), "refuses"), plan(stages="5,25,100"))
    rollout = fleet.run()
    assert rollout.status == "aborted"
    assert "failed on 2 of 2 devices" in rollout.note
    assert "self-test" in rollout.note
    assert max(fleet.most_asked) == 2
    assert not fleet.having()
    assert [m.error for m in rollout.members if m.wish == "back"] == ["self-test"] * 2
    kinds = fleet.kinds_of_events()
    assert kinds.count("device.failed") == 2
    assert kinds[-2:] == ["rollout.aborted", "rollout.returned"]


def test_devices_go_back_to_what_they_had_though_it_is_older():
    fleet = Fleet(dict.fromkeys(all_good(3), "refuses"), plan(stages="100"))
    fleet.run()
    expected = msgspec.structs.replace(OLD, allow_older=True)
    assert {d.desired["m"] for d in fleet.devices.values()} == {expected}


def test_devices_that_had_nothing_go_back_to_nothing():
    fleet = Fleet(dict.fromkeys(all_good(3), "refuses"), plan(stages="100"), old=False)
    fleet.run()
    assert [d.desired for d in fleet.devices.values()] == [{}, {}, {}]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("errors", "fails 30.0% of"), ("lags", "4.00 times"), ("silent", "no progress for 60 s")],
)
def test_a_version_that_does_badly_is_taken_back(kind, reason):
    fleet = Fleet(dict.fromkeys(all_good(8), kind), plan(stages="25,100"))
    rollout = fleet.run()
    assert (rollout.status, max(fleet.most_asked)) == ("aborted", 2)
    assert reason in rollout.note


def test_a_version_that_takes_devices_offline_is_taken_back():
    fleet = Fleet(dict.fromkeys(all_good(8), "vanishes"), plan(stages="25,100"))
    rollout = fleet.run()
    assert (rollout.status, max(fleet.most_asked)) == ("aborted", 2)
    assert "offline for 60 s" in rollout.note


def test_a_device_that_comes_and_goes_may_be_away_again_after_it_installed():
    fleet = Fleet(all_good(1), plan(stages="100", gates=GATES))
    away = msgspec.structs.replace(fleet.devices["gw-0"], online=False)
    fleet.devices["gw-0"] = away  # when it is asked
    fleet.step()
    fleet.devices["gw-0"] = msgspec.structs.replace(fleet.devices["gw-0"], online=True)
    fleet.run(lambda rollout: rollout.members[0].answer == "done")
    fleet.devices["gw-0"] = msgspec.structs.replace(fleet.devices["gw-0"], online=False)
    fleet.kinds["gw-0"] = "offline"
    assert fleet.run().status == "completed"


def test_drift_breaks_a_rollout_only_where_a_limit_is_set():
    for limit, status in ((None, "completed"), (0.25, "aborted")):
        gates = msgspec.structs.replace(GATES, max_drift=limit)
        fleet = Fleet(all_good(4), plan(stages="100", gates=gates))
        drifting = msgspec.structs.replace(WELL, drift=0.4)
        fleet.run(lambda rollout: rollout.settled_at is not None)
        for thing, device in fleet.devices.items():
            model = msgspec.structs.replace(device.models["m"], health=drifting)
            fleet.devices[thing] = msgspec.structs.replace(device, models={"m": model})
            fleet.kinds[thing] = "silent"  # leaves the report as it is
        fleet.step()
        if limit is None:
            fleet.run()
        assert ("drift" in fleet.rollout.note) == (limit is not None)
        assert fleet.rollout.status == ("returning" if limit else status)


def test_a_few_requests_are_no_evidence():
    few = Health(requests=5, errors=5, p95_ms=900.0)
    fleet = Fleet(all_good(2), plan(stages="100"))
    fleet.run(lambda rollout: rollout.settled_at is not None)
    for thing, device in fleet.devices.items():
        model = msgspec.structs.replace(device.models["m"], health=few)
        fleet.devices[thing] = msgspec.structs.replace(device, models={"m": model})
        fleet.kinds[thing] = "silent"
    assert fleet.run().status == "completed"


@pytest.mark.parametrize(
    ("old_ms", "new_ms", "slack_ms", "breaks"),
    [
        (0.14, 0.5, 5.0, False),
        (0.14, 6.0, 5.0, True),
        (0.14, 0.5, 0.0, True),
        (100.0, 140.0, 5.0, False),
        (100.0, 160.0, 5.0, True),
    ],
)
def test_latency_must_be_worse_by_a_share_and_by_more_than_noise(old_ms, new_ms, slack_ms, breaks):
    old, new = (msgspec.structs.replace(WELL, p95_ms=p95) for p95 in (old_ms, new_ms))
    assert bool(list(breaches(Gates(p95_slack_ms=slack_ms), [(new, old)]))) is breaks


def test_some_devices_may_fail():
    gates = msgspec.structs.replace(GATES, max_failed=0.25)
    kinds = all_good(8) | {"gw-0": "refuses", "gw-1": "refuses"}
    assert Fleet(kinds, plan(stages="100", gates=gates)).run().status == "completed"
    kinds["gw-2"] = "refuses"
    assert Fleet(kinds, plan(stages="100", gates=gates)).run().status == "aborted"


@pytest.mark.parametrize("away", [(), ("away",)])
def test_failures_within_the_limit_leave_fewer_devices_to_wait_for(away):
    gates = msgspec.structs.replace(GATES, max_failed=0.3, min_devices=4 + len(away))
    kinds = all_good(4) | {"gw-0": "refuses"} | dict.fromkeys(away, "offline")
    fleet = Fleet(kinds, plan(stages="100", gates=gates))
    if away:
        for _ in range(200):
            fleet.step()
        assert fleet.rollout.note == "waits until 1 more come online of away"
        fleet.kinds["away"] = "good"
    assert fleet.run().status == "completed"


def test_a_version_that_runs_nowhere_is_taken_back_however_many_may_fail():
    gates = msgspec.structs.replace(GATES, max_failed=1)
    fleet = Fleet(dict.fromkeys(all_good(3), "refuses"), plan(stages="100", gates=gates))
    assert fleet.run().status == "aborted"
    assert "runs on none of the devices that were asked" in fleet.rollout.note


def test_stragglers_within_the_limit_hold_up_nobody():
    gates = msgspec.structs.replace(GATES, max_failed=0.25, max_wait_s=1000)
    fleet = Fleet(all_good(8) | {"gw-0": "slow"}, plan(stages="100", gates=gates))
    began = fleet.now
    assert fleet.run().status == "completed"
    assert fleet.now - began < 20
    assert "gw-0" in fleet.rollout.note


def test_a_device_that_is_offline_all_along_is_left_out_and_keeps_the_wish():
    fleet = Fleet(all_good(3) | {"away": "offline"}, plan(stages="100"))
    rollout = fleet.run()
    assert rollout.status == "completed"
    assert "left to do so: away" in rollout.note
    assert fleet.devices["away"].desired["m"].digest == PLAN.digest


def test_a_stage_of_devices_that_are_all_offline_waits():
    fleet = Fleet({"away": "offline"}, plan(stages="100"))
    for _ in range(200):
        fleet.step()
    assert fleet.rollout.status == "running"
    assert fleet.rollout.note == "waits until 1 more come online of away"
    fleet.kinds["away"] = "good"
    fleet.devices["away"] = msgspec.structs.replace(fleet.devices["away"], online=True)
    assert fleet.run().status == "completed"


def test_enough_devices_must_have_answered():
    gates = msgspec.structs.replace(GATES, min_devices=4, max_wait_s=1000)
    kinds = all_good(8) | dict.fromkeys(("gw-0", "gw-1", "gw-2", "gw-3", "gw-4"), "silent")
    fleet = Fleet(kinds, plan(stages="100", gates=gates))
    for _ in range(50):
        fleet.step()
    assert fleet.rollout.note.startswith("waits for gw-")


def test_a_canary_is_tried_first_and_then_promoted():
    fleet = Fleet(all_good(4), plan(stages="50,100", canary=10))
    fleet.run(lambda rollout: rollout.settled_at is not None)
    tried = [d.desired["m"] for d in fleet.devices.values() if d.desired["m"].canary]
    assert {(m.digest, m.canary.digest, m.canary.percent) for m in tried} == {
        (OLD.digest, PLAN.digest, 10)
    }
    assert fleet.run().status == "completed"
    assert {d.desired["m"].canary for d in fleet.devices.values()} == {None}
    assert {m.before for m in fleet.rollout.members} == {OLD}


@pytest.mark.parametrize("kind", ["refuses", "errors", "lags"])
def test_a_bad_canary_never_becomes_the_version(kind):
    fleet = Fleet(dict.fromkeys(all_good(4), kind), plan(stages="50,100", canary=10))
    fleet.run(lambda rollout: rollout.status != "running")
    assert all(d.models["m"].digest == OLD.digest for d in fleet.devices.values())
    assert fleet.run().status == "aborted"


def test_a_device_without_a_version_has_nothing_to_try_beside():
    fleet = Fleet(all_good(2), plan(stages="100", canary=10), old=False)
    fleet.step()
    assert {d.desired["m"].canary for d in fleet.devices.values()} == {None}
    assert fleet.run().status == "completed"


def test_a_rate_asks_steadily_and_the_first_at_once():
    fleet = Fleet(all_good(30), plan(stages="10/min"))
    fleet.step()
    assert len(fleet.having()) == 1
    for _ in range(60):
        fleet.step()
    assert len(fleet.having()) == 11
    fleet.run()
    assert fleet.rollout.status == "completed"


def test_what_was_not_asked_while_the_server_was_away_is_not_made_up_for():
    fleet = Fleet(all_good(100), plan(stages="30/min"))
    fleet.step()
    fleet.step(3600)
    assert len(fleet.having()) <= 6


def test_a_rate_stops_at_the_first_breach():
    fleet = Fleet(dict.fromkeys(all_good(30), "refuses"), plan(stages="10/min"))
    assert fleet.run().status == "aborted"
    assert max(fleet.most_asked) == 1


def test_every_step_after_the_first_waits_for_approval():
    fleet = Fleet(all_good(10), plan(stages="10,50,100", approve=True))
    for stage in (1, 2):
        fleet.run(lambda rollout: rollout.status == "waiting")
        for _ in range(30):
            fleet.step()
        assert fleet.rollout.stage == stage - 1
        fleet.act(operate.approve(fleet.rollout, "ann"))
        fleet.run(lambda rollout, stage=stage: rollout.stage == stage)
    assert fleet.run().status == "completed"
    assert [e.by for e in fleet.events if e.kind == "rollout.approved"] == ["ann", "ann"]


def test_a_paused_rollout_asks_nobody_but_still_breaks():
    fleet = Fleet(all_good(10), plan(stages="10,100"))
    fleet.step()
    fleet.act(operate.pause(fleet.rollout, "ann"))
    for _ in range(50):
        fleet.step()
    assert (fleet.rollout.status, len(fleet.having())) == ("paused", 1)
    [thing] = fleet.having()
    report = msgspec.structs.replace(
        fleet.devices[thing].models["m"], status="rolled_back", error="crashed", digest=OLD.digest
    )
    fleet.devices[thing] = msgspec.structs.replace(fleet.devices[thing], models={"m": report})
    fleet.kinds[thing] = "silent"
    fleet.step()
    assert fleet.rollout.status == "returning"


def test_a_resumed_rollout_soaks_again():
    fleet = Fleet(all_good(10), plan(stages="10,100"))
    fleet.run(lambda rollout: rollout.settled_at is not None)
    fleet.act(operate.pause(fleet.rollout, "ann"))
    for _ in range(50):
        fleet.step()
    fleet.act(operate.resume(fleet.rollout, "ann", fleet.now))
    resumed = fleet.now
    fleet.run(lambda rollout: rollout.stage == 1)
    assert fleet.now - resumed > GATES.soak_s


def test_an_abort_by_hand_takes_everybody_back():
    fleet = Fleet(all_good(10), plan(stages="50,100"))
    fleet.run(lambda rollout: rollout.settled_at is not None)
    fleet.act(operate.abort(fleet.rollout, "ann", fleet.now))
    assert fleet.run().status == "aborted"
    assert not fleet.having()
    assert fleet.rollout.note == "aborted by ann"


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        ("paused", "what can be done: resume, abort"),
        ("completed", "what can be done: rollback"),
        ("returning", "wait until its devices are back"),
        ("aborted", "deploy again"),
    ],
)
def test_a_refusal_says_what_can_be_done(status, remedy):
    rollout = msgspec.structs.replace(Fleet(all_good(1)).rollout, status=status)
    with pytest.raises(FleetError) as refused:
        operate.approve(rollout, "ann")
    assert refused.value.remedy == remedy


def test_a_rollback_leaves_devices_that_were_asked_for_something_else():
    fleet = Fleet(all_good(3), plan(stages="100"))
    fleet.run()
    other = msgspec.structs.replace(OLD, digest="sha256:third", version="3.0.0")
    fleet.devices["gw-1"] = msgspec.structs.replace(fleet.devices["gw-1"], desired={"m": other})
    fleet.act(operate.rollback(fleet.rollout, fleet.devices, "ann", fleet.now))
    assert fleet.run().status == "rolled_back"
    assert fleet.devices["gw-1"].desired["m"] == other
    assert fleet.devices["gw-0"].desired["m"].digest == OLD.digest


@pytest.mark.parametrize("canary", [None, 10])
def test_what_failed_in_a_rollout_that_was_taken_back_is_tried_again(canary):
    fleet = Fleet({"gw-0": "refuses"}, plan(stages="100", canary=canary))
    fleet.run(lambda rollout: rollout.status == "returning")
    failed_with = fleet.rollout.members[0].generation
    assert fleet.run().status == "aborted"
    # Nothing that the device is asked for or reports tells of the failure any more.
    assert fleet.devices["gw-0"].desired["m"].generation == OLD.generation
    again = Fleet({"gw-0": "good"}, plan(stages="100", canary=canary))
    again.devices = fleet.devices
    again.rollout = msgspec.structs.replace(again.rollout, id=2)
    again.step()
    assert again.devices["gw-0"].desired["m"].generation > failed_with
    assert again.run().status == "completed"


@pytest.mark.parametrize("known", ["desired", "reported"])
def test_a_server_whose_rollouts_begin_anew_asks_above_what_devices_know(known):
    """As after a restored database: the numbers of rollouts are smaller than generations."""
    fleet = Fleet(all_good(1), plan(stages="100"))
    device = fleet.devices["gw-0"]
    fleet.devices["gw-0"] = msgspec.structs.replace(
        device,
        desired={"m": msgspec.structs.replace(OLD, generation=7 * (known == "desired"))},
        models={"m": msgspec.structs.replace(
            device.models["m"], generation=7 * (known == "reported")
        )},
    )  # fmt: skip
    fleet.step()
    assert fleet.devices["gw-0"].desired["m"].generation == 8


def test_a_device_whose_former_version_does_not_run_either_is_not_waited_for():
    """It failed with a version within max_failed, kept the wish, and is asked for it again."""
    fleet = Fleet({"gw-0": "refuses"}, plan(stages="100"))
    device = fleet.devices["gw-0"]
    wish = msgspec.structs.replace(OLD, digest=PLAN.digest, version=PLAN.version)
    fleet.devices["gw-0"] = msgspec.structs.replace(device, desired={"m": wish})
    fleet.run(lambda rollout: rollout.status == "returning")
    began = fleet.now
    assert fleet.run().status == "aborted"
    assert fleet.now - began < 5
    assert fleet.events[-1].text == "back on what they had: 0 of 1 devices"


@pytest.mark.parametrize(
    ("status", "refused"),
    [
        ("completed", ("pause", "resume", "approve", "abort")),
        ("running", ("resume", "approve", "rollback")),
        ("paused", ("pause", "approve", "rollback")),
        ("aborted", ("pause", "resume", "approve", "abort", "rollback")),
    ],
)
def test_what_a_rollout_does_not_allow_is_refused(status, refused):
    fleet = Fleet(all_good(1), plan(stages="100"))
    rollout = msgspec.structs.replace(fleet.rollout, status=status)
    actions = {
        "pause": lambda: operate.pause(rollout, "ann"),
        "resume": lambda: operate.resume(rollout, "ann", 0.0),
        "approve": lambda: operate.approve(rollout, "ann"),
        "abort": lambda: operate.abort(rollout, "ann", 0.0),
        "rollback": lambda: operate.rollback(rollout, fleet.devices, "ann", 0.0),
    }
    for name in refused:
        with pytest.raises(FleetError, match=f"is {status}: {name} does nothing"):
            actions[name]()


def test_an_answer_counts_only_after_the_wish_is_written():
    fleet = Fleet(all_good(1), plan(stages="100"))
    fleet.now += 1
    unwritten = decide(fleet.rollout, fleet.devices, fleet.now).rollout
    later = decide(unwritten, fleet.devices, fleet.now + 10_000).rollout
    assert (later.members[0].answer, later.note) == ("open", "tells devices")


def test_a_rollout_does_not_complete_before_every_device_was_told():
    gates = msgspec.structs.replace(GATES, max_failed=0.5)
    fleet = Fleet(all_good(4), plan(stages="100", gates=gates))
    fleet.step()
    untold = msgspec.structs.replace(fleet.rollout.members[0], written=False)
    fleet.rollout = msgspec.structs.replace(
        fleet.rollout, members=(untold, *fleet.rollout.members[1:])
    )
    rollout = fleet.rollout
    for _ in range(50):
        fleet.now += 1
        for thing in fleet.devices:
            fleet._react(thing)
        rollout = decide(rollout, fleet.devices, fleet.now).rollout
    assert (rollout.status, rollout.note) == ("running", "tells devices")


def test_a_shadow_that_refuses_the_wish_is_a_failure():
    fleet = Fleet(all_good(1), plan(stages="100"))
    asked = decide(fleet.rollout, fleet.devices, fleet.now).rollout
    refused = asked.with_replies({"gw-0": ("full", "The payload exceeds")}, fleet.now)
    after = decide(refused, fleet.devices, fleet.now)
    assert after.rollout.status == "returning"
    assert "could not be written: The payload exceeds" in after.rollout.note


kinds = st.sampled_from(
    ("good", "good", "good", "refuses", "slow", "silent", "offline", "vanishes", "errors", "lags")
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(kinds, min_size=1, max_size=30),
    st.sampled_from(("5,25,100", "50,100", "100", "60/min")),
    st.booleans(),
    st.sampled_from((0.0, 0.1, 0.5)),
)
def test_rollouts_end_and_harm_is_bounded(members, stages, canary, max_failed):
    gates = msgspec.structs.replace(GATES, max_failed=max_failed)
    trial = 20 if canary and "/" not in stages else None
    fleet = Fleet(
        {f"gw-{n}": kind for n, kind in enumerate(members)},
        plan(stages=stages, canary=trial, gates=gates),
    )
    for _ in range(2500):
        if fleet.rollout.status in ENDED:
            break
        fleet.step()
    _check(fleet, fleet.rollout, max_failed)


def _check(fleet: Fleet, rollout: Rollout, max_failed: float) -> None:
    asked = [m for m in rollout.members if m.wish != "none"]
    reached = [m for m in asked if fleet.kinds[m.thing] != "offline"]
    if rollout.status == "aborted":
        # Nobody is left behind with a version that was taken back.
        assert not fleet.having()
        assert any(fleet.kinds[m.thing] in HARMFUL for m in asked)
    elif rollout.status == "completed":
        assert fleet.having() == set(fleet.devices)
        failed = [m for m in reached if fleet.kinds[m.thing] in ("refuses", "silent")]
        assert len(failed) <= max_failed * len(reached)
    else:
        # Only devices that nobody reaches are waited for without an end.
        assert rollout.note.startswith("waits until")
        assert not [m for m in asked if m.answer == "done"]
