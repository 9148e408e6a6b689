"""Candidates that a device measures for a workstation, in one process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_sdk.agent.trials import Trials
from edge_sdk.bundle.measurements import DeviceFigures
from edge_sdk.bundle.reader import Bundle
from edge_sdk.errors import TransferError
from edge_sdk.runtime.trial import Question, measure
from edge_sdk.shadow.topics import ROOTS, Address
from edge_sdk.shadow.trials import SHADOW, Trial, TrialCandidate
from tests.agent.cloud_process import until
from tests.agent.releases import desired
from tests.agent.world import Cloud, Device

THING = "gate-7"


def wish(bundles: Mapping[str, Bundle], *names: str, number: str = "t1", **fields: Any) -> Trial:
    """A trial of some bundles."""
    wishes = {name: desired(bundles[name]) for name in names}
    candidates = tuple(
        TrialCandidate(name=name, ref=wish.ref, digest=wish.digest) for name, wish in wishes.items()
    )
    return Trial(id=number, candidates=candidates, **{"seconds": 0.03, "threads": 0, **fields})


def of_digest(digest: str) -> Trial:
    """A trial of something that nobody has."""
    lost = TrialCandidate(name="lost", ref="shelf.test/lookup:9.0.0", digest=digest)
    return Trial(id="t", candidates=(lost,), seconds=0.03, threads=0)


def ask(cloud: Cloud, trial: Trial | None, thing: str = THING) -> None:
    state = {"desired": {"trial": trial and msgspec.to_builtins(trial)}}
    cloud.request(Address(ROOTS[0], thing, SHADOW), "update", {"state": state})


def said(cloud: Cloud, thing: str = THING) -> dict[str, Any]:
    """What the device reports of its trial."""
    shadow = cloud.shadow(thing, name=SHADOW)
    assert shadow is not None
    found: dict[str, Any] = shadow.reported.state.get("trial", {})
    return found


def test_a_device_measures_what_it_is_asked_about_and_keeps_nothing(device, cloud, bundles):
    here: Device = device()
    ask(cloud, wish(bundles, "1", "2"))
    here.settle()
    result = said(cloud)
    assert result["status"] == "done"
    for name in ("1", "2"):
        assert result["figures"][name]["p50_ms"] > 0
        assert result["figures"][name]["peak_rss_bytes"] > 2**20
    assert result["machine"]
    assert "candidate" not in result
    assert here.report.models == {}, "nothing was installed"
    assert not (Path(here.config.store) / "agent" / "trials").exists()


def test_a_candidate_that_fails_its_self_test_says_so_and_the_others_count(device, cloud, bundles):
    here: Device = device()
    ask(cloud, wish(bundles, "1", "wrong"))
    here.settle()
    figures = said(cloud)["figures"]
    assert figures["1"]["p50_ms"] > 0
    assert figures["wrong"]["error"].startswith("EngineError: ")
    assert "y" in figures["wrong"]["error"], "the output that deviates"


def test_a_trial_is_measured_once_and_a_new_one_again(device, cloud, bundles, shelf):
    here: Device = device()
    ask(cloud, wish(bundles, "1"))
    here.settle()
    came = shelf.bytes
    here.live(300)
    assert shelf.bytes == came
    ask(cloud, wish(bundles, "1", number="t2"))
    here.settle()
    assert said(cloud)["id"] == "t2"
    assert said(cloud)["status"] == "done"
    assert shelf.bytes > came


def test_a_candidate_that_cannot_be_had_fails_the_trial(device, cloud, bundles):
    here: Device = device()
    ask(cloud, of_digest("sha256:" + "0" * 64))
    here.settle()
    assert said(cloud)["status"] == "failed"
    assert "no such bundle" in said(cloud)["error"]


def test_a_trial_waits_for_a_shelf_that_is_not_reached(device, cloud, bundles, shelf):
    here: Device = device()
    shelf.open = False
    ask(cloud, wish(bundles, "1"))
    here.live(20)
    assert said(cloud)["status"] == "waiting"
    shelf.open = True
    here.live(120)
    assert said(cloud)["status"] == "done"


@pytest.mark.parametrize("digest", ["sha256:../../../gone", "../../../../gone"])
def test_no_digest_names_a_folder_elsewhere(device, cloud, bundles, digest):
    here: Device = device()
    before = sorted(Path(here.config.store).parent.iterdir())
    ask(cloud, of_digest(digest))
    here.settle()
    assert said(cloud)["status"] == "failed"
    assert "not a sha256 digest" in said(cloud)["error"]
    assert sorted(Path(here.config.store).parent.iterdir()) == before


@pytest.mark.parametrize("fields", [{"seconds": 1e9}, {"seconds": -1}, {"threads": 10**6}])
def test_what_would_keep_a_device_busy_for_long_is_no_trial(device, cloud, bundles, fields):
    here: Device = device()
    ask(cloud, wish(bundles, "1", **fields))
    here.settle()
    assert said(cloud) == {}


def test_hundreds_of_candidates_are_no_trial(device, cloud, bundles, shelf):
    here: Device = device()
    [one] = wish(bundles, "1").candidates
    many = tuple(msgspec.structs.replace(one, name=str(n)) for n in range(30))
    ask(cloud, Trial(id="t", candidates=many, seconds=0.0, threads=0))
    here.settle()
    assert said(cloud) == {}
    assert shelf.bytes == 0


def test_a_trial_that_is_taken_back_leaves_nothing_in_the_shadow(device, cloud, bundles):
    here: Device = device()
    ask(cloud, wish(bundles, "1"))
    here.settle()
    ask(cloud, None)
    here.settle()
    assert said(cloud) == {}


def test_a_trial_that_cannot_be_read_is_left_alone(device, cloud, bundles):
    here: Device = device()
    state = {"desired": {"trial": {"id": 7, "candidates": "all"}}}
    cloud.request(Address(ROOTS[0], THING, SHADOW), "update", {"state": state})
    here.settle()
    assert said(cloud) == {}
    ask(cloud, None)
    ask(cloud, wish(bundles, "1"))
    here.settle()
    assert said(cloud)["status"] == "done"


class Shop:
    """A delivery that brings bundles from folders."""

    def __init__(self, bundles: Mapping[str, Bundle]) -> None:
        self.by_digest = {b.descriptor.digest: b for b in bundles.values()}

    def fetch(self, target, progress, cancelled, *, into):
        from edge_sdk.bundle.blobs import BlobStore
        from edge_sdk.transport.fetch import Fetched

        bundle = self.by_digest[target.digest]
        store, source = BlobStore(into), BlobStore(bundle.path)
        for variant in bundle.variants:
            for blob in (*variant.all_blobs, bundle.descriptor.blob):
                store.adopt(source, blob)
        return Fetched(bundle.descriptor, bundle.descriptor, (), 0, 0)


def trials(bundles, folder: Path, measure, memory: int | None = None) -> Trials:
    return Trials(
        folder / "trials",
        Shop(bundles),  # type: ignore[arg-type]
        clock=lambda: 0.0,
        memory=lambda: memory,
        about=lambda: "a board",
        measure=measure,
    )


def test_candidates_take_turns_and_the_median_counts(bundles, tmp_path):
    asked: list[str] = []
    times = iter([5.0, 50.0, 1.0, 40.0, 3.0, 60.0])

    def measure(question: Question, cancelled: Callable[[], bool]) -> DeviceFigures:
        asked.append(question.bundle.name.rpartition(":")[2])
        return DeviceFigures(p50_ms=next(times), p95_ms=9.0, calls=10, peak_rss_bytes=len(asked))

    here = trials(bundles, tmp_path, measure)
    here.desire({"trial": msgspec.to_builtins(wish(bundles, "1", "2"))}, {})
    here.begin()()
    assert asked == ["1.0.0", "2.0.0"] * 3
    assert here.result is not None
    assert here.result.figures["1"].p50_ms == 3.0
    assert here.result.figures["2"].p50_ms == 50.0
    assert here.result.figures["1"].calls == 30
    assert here.result.figures["2"].peak_rss_bytes == 6


def test_without_memory_to_spare_nothing_is_started(bundles, tmp_path):
    def measure(question: Question, cancelled: Callable[[], bool]) -> DeviceFigures:
        raise AssertionError("no process may be started")

    here = trials(bundles, tmp_path, measure, memory=60 << 20)
    here.desire({"trial": msgspec.to_builtins(wish(bundles, "1"))}, {})
    here.begin()()
    assert here.result is not None
    assert here.result.figures["1"].error == "only 28 MiB of memory are left"


def test_what_is_cancelled_begins_again(bundles, tmp_path):
    calls = 0

    def measure(question: Question, cancelled: Callable[[], bool]) -> DeviceFigures:
        nonlocal calls
        calls += 1
        if calls == 2:
            here.cancel()
            assert cancelled()
            raise TransferError("cancelled")
        return DeviceFigures(p50_ms=1.0)

    here = trials(bundles, tmp_path, measure)
    here.desire({"trial": msgspec.to_builtins(wish(bundles, "1"))}, {})
    here.begin()()
    assert here.result is not None
    assert here.result.status == "waiting"
    assert here.ready
    here.begin()()
    assert here.result.status == "done"
    assert calls == 5


def test_a_process_that_needs_more_than_its_limit_is_an_error_of_the_candidate(bundles):
    found = measure(Question(bundles["1"].path, 0.01, memory_limit=20 << 20))
    assert found.error
    assert measure(Question(bundles["1"].path, 0.01)).error is None


def test_a_process_that_is_killed_is_an_error_of_the_candidate(bundles, monkeypatch):
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    command = "edge_sdk.runtime.trial.sys.executable"
    script = Path(bundles["1"].path).parent / "killed.sh"
    script.write_text(f"#!/bin/sh\nexec python3 -c '{kill}'\n")
    script.chmod(0o755)
    monkeypatch.setattr(command, str(script))
    found = measure(Question(bundles["1"].path, 0.01))
    assert found.error is not None
    assert "was killed" in found.error


def test_a_trial_that_is_no_longer_wanted_ends_its_process(bundles):
    from edge_sdk.errors import EngineError

    with pytest.raises(EngineError, match="cancelled"):
        measure(Question(bundles["1"].path, 60.0), lambda: True)


def test_a_trial_that_is_taken_back_while_it_is_measured_leaves_no_files(bundles, tmp_path):
    def measure(question: Question, cancelled: Callable[[], bool]) -> DeviceFigures:
        assert (tmp_path / "trials").exists()
        here.desire({}, {})
        assert cancelled()
        raise TransferError("cancelled")

    here = trials(bundles, tmp_path, measure)
    here.desire({"trial": msgspec.to_builtins(wish(bundles, "1"))}, {})
    here.begin()()
    assert here.result is None
    assert not here.waits
    assert not (tmp_path / "trials").exists()


def test_what_is_cancelled_before_its_thread_runs_does_not_run(bundles, tmp_path):
    def measure(question: Question, cancelled: Callable[[], bool]) -> DeviceFigures:
        assert cancelled()
        raise TransferError("cancelled")

    here = trials(bundles, tmp_path, measure)
    here.desire({"trial": msgspec.to_builtins(wish(bundles, "1"))}, {})
    work = here.begin()
    here.cancel()
    work()
    assert here.result is not None
    assert here.result.status == "waiting"


def test_what_a_killed_agent_left_is_gone_when_nothing_is_wanted(bundles, tmp_path):
    (tmp_path / "trials" / "0123").mkdir(parents=True)
    here = trials(bundles, tmp_path, lambda question, cancelled: DeviceFigures())
    here.desire({}, {})
    assert not (tmp_path / "trials").exists()


def test_an_agent_that_ends_again_and_again_while_it_measures_gives_up(bundles, tmp_path):
    wanted = {"trial": msgspec.to_builtins(wish(bundles, "1"))}
    reported: dict[str, Any] = {}
    statuses = []
    for _ in range(5):
        here = trials(bundles, tmp_path, lambda question, cancelled: DeviceFigures())
        here.desire(wanted, reported)
        assert here.result is not None
        statuses.append(here.result.status)
        status = "measuring" if here.ready else here.result.status
        said_last = msgspec.structs.replace(here.result, status=status)
        reported = {"trial": msgspec.to_builtins(said_last)}
    assert statuses == ["waiting", "waiting", "waiting", "failed", "failed"]
    assert "the agent ended 3 times" in (here.result.error or "")


def test_a_trial_whose_measurement_fails_in_an_unknown_way_is_over(bundles, tmp_path):
    def measure(question: Question, cancelled: Callable[[], bool]) -> DeviceFigures:
        raise ZeroDivisionError("x" * 5000)

    here = trials(bundles, tmp_path, measure)
    here.desire({"trial": msgspec.to_builtins(wish(bundles, "1"))}, {})
    here.begin()()
    assert here.result is not None
    assert here.result.status == "failed"
    assert len(here.result.error or "") == 200
    assert not here.ready


def test_what_is_measured_ends_with_the_agent_that_is_killed(bundles):
    program = (
        "import sys; from pathlib import Path; from edge_sdk.runtime.trial import *;"
        "print('begun', flush=True); measure(Question(Path(sys.argv[1]), 500.0))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(bundles["1"].path)], stdout=subprocess.PIPE
    ) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
        [child] = until(lambda: children.read_text().split(), "the child")
        maps = Path(f"/proc/{child}/maps")
        until(lambda: "onnxruntime" in maps.read_text(), "its engine")
        os.kill(int(child), signal.SIGSTOP)  # so that it does not come to its own end
        agent.kill()

    def is_told() -> bool:
        try:
            status = Path(f"/proc/{child}/status").read_text()
        except FileNotFoundError:
            return True  # the kernel wakes what is stopped and left alone by its session
        pending = re.search(r"ShdPnd:\s+(\w+)", status)
        return bool(pending and int(pending[1], 16) >> (signal.SIGTERM - 1) & 1)

    until(is_told, "the signal")
    with suppress(ProcessLookupError):
        os.kill(int(child), signal.SIGCONT)
    until(lambda: not Path(f"/proc/{child}").exists(), "the child's end")
