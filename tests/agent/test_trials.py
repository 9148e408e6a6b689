"""Candidates that a device measures for a workstation, in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from tests.agent.releases import desired
from tests.agent.world import Cloud, Device

THING = "gate-7"


def wish(bundles: Mapping[str, Bundle], *names: str, number: str = "t1", **fields: Any) -> Trial:
    """A trial of some bundles."""
    candidates = {
        name: TrialCandidate(ref=desired(bundles[name]).ref, digest=desired(bundles[name]).digest)
        for name in names
    }
    return Trial(id=number, candidates=candidates, seconds=0.03, **fields)


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
    assert result["engines"]["onnx"]
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
    lost = TrialCandidate(ref="shelf.test/lookup:9.0.0", digest="sha256:" + "0" * 64)
    ask(cloud, Trial(id="t", candidates={"lost": lost}))
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
        about=lambda: ("a board", {}),
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
    here.perform()
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
    here.perform()
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
    here.perform()
    assert here.result is not None
    assert here.result.status == "waiting"
    assert here.ready
    here.perform()
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
