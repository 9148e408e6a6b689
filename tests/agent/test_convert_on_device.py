"""``edge-sdk convert --on thing:NAME``: the whole way, with a real broker, server and agent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="the cloud's side needs the extra [fleet]")
pytest.importorskip("onnx_ir", reason="converting needs the extra [convert]")

from benchmarks.llm.model import TINY, write
from converters.choose import Judged
from converters.on_device import judged_by, refined
from converters.recipes import SOURCE
from converters.workshop import Built
from device_profiles.loader import load_profile, profile_path
from edge_sdk.bundle.measurements import Candidate, DeviceFigures
from edge_sdk.bundle.record import Agreement, Recipe
from edge_sdk.bundle.store import Store
from edge_sdk.cli.on_thing import OnThing
from edge_sdk.errors import FleetError
from edge_sdk.fleet.client import FleetClient
from tests.agent.cloud_process import AgentProcess, RealCloud, agent_online, real_cloud, until
from tests.cli import models
from tests.cli.conftest import edge_sdk

pytestmark = pytest.mark.converts


@pytest.fixture(scope="module")
def cloud(bundles, tmp_path_factory) -> Iterator[RealCloud]:
    with real_cloud(tmp_path_factory.mktemp("cloud"), [bundles["1"]]) as made:
        yield made


@pytest.fixture
def agent(cloud, tmp_path) -> Iterator[AgentProcess]:
    with agent_online(cloud, tmp_path, "bench-2") as made:
        yield made


@pytest.fixture
def lean(tmp_path) -> Path:
    text = profile_path("x86-64").read_text().replace('name = "x86-64"', 'name = "lean"', 1)
    few = 'recipes = ["int8-static", "fp32"]'
    path = tmp_path / "lean.toml"
    path.write_text(re.sub(r"recipes = \[.*\]", few, text))
    return path


def test_a_devices_figures_decide_and_refine_the_profile(agent, cloud, lean, tmp_path):
    source = models.classifier(tmp_path)
    server = cloud.server.serving["http"]
    out, mine = tmp_path / "bundle", tmp_path / "mine.toml"
    done = edge_sdk(
        "convert", source, "-o", out, "-p", lean, "--data", source.parent / "data.npz",
        "--on", "thing:bench-2", "--server", server, "--save-profile", mine, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [variant] = json.loads(done.stdout)["variants"]
    report = variant["report"]
    assert "thing:bench-2" in " ".join(report["notes"])
    assert report["decisive"]
    rows = {row["name"]: row for row in report["candidates"]}
    measured = [row for row in rows.values() if row.get("device")]
    assert rows[report["chosen"]] in measured
    assert rows["source"]["device"]["p50_ms"] > 0
    for row in measured:
        ratio = rows["source"]["device"]["p50_ms"] / row["device"]["p50_ms"]
        assert row["speedup"] == pytest.approx(ratio, rel=1e-2)
    refined_one, before = load_profile(str(mine)), load_profile(str(lean))
    assert refined_one != before
    assert [e.version for e in Store(cloud.server.serving["store"]).ls()] == ["1.0.0"]


def test_a_dialogue_models_answers_on_a_device_decide(agent, cloud, tmp_path):
    source = write(tmp_path / "tiny", TINY)
    text = profile_path("x86-64").read_text()
    pattern = r"(\[quantization\.decoder\]\nrecipes = )\[[^\]]*\]"
    text, count = re.subn(pattern, r'\g<1>["int8-block", "fp32"]', text)
    assert count == 1
    few = tmp_path / "few.toml"
    few.write_text(text)
    done = edge_sdk(
        "convert", source, "-o", tmp_path / "bundle", "-p", few, "--on", "thing:bench-2",
        "--server", cloud.server.serving["http"], "--max-drop", "9", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [variant] = json.loads(done.stdout)["variants"]
    report = variant["report"]
    [chosen] = (row for row in report["candidates"] if row["name"] == report["chosen"])
    assert "thing:bench-2" in " ".join(report["notes"])
    assert report["decisive"]
    assert chosen["device"]["tokens_per_second"] > 0
    assert chosen["device"]["ttft_ms"] > 0
    assert chosen["device"]["peak_rss_bytes"] > 2**20


def test_a_device_on_aws_topics_is_not_waited_for(cloud, tmp_path):
    thing, server = "gate-aws", cloud.server.serving["http"]
    client = FleetClient(server)
    with agent_online(cloud, tmp_path, thing, broker='shadow_root = "$aws/things"'):
        until(lambda: client.device(thing).device.agent.version, "what the agent says of itself")
        with pytest.raises(FleetError, match="follows no trials") as told:
            OnThing(f"thing:{thing}", server, None, None, print)
    assert "edge/things" in str(told.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--on", "thing:nobody"], "no device 'nobody' is known"),
        (["--on", "bench-2"], "write --on thing:NAME"),
        (["--on", "thing:bench-2", "-p", "arm64"], "for 2 profiles"),
        (["--on", "thing:bench-2", "--save-profile", "no/such/x.toml"], "no such folder"),
        (["--on", "thing:bench-2", "--recipe", "forced.toml"], "leaves nothing to choose"),
        (["--save-profile", "x.toml"], "add --on"),
    ],
)
def test_what_cannot_be_measured_is_said_before_any_work(
    agent, cloud, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    Path("forced.toml").write_text('name = "fp32"\n')
    source = models.classifier(tmp_path)
    server = cloud.server.serving["http"]
    done = edge_sdk(
        "convert", source, "-o", tmp_path / "b", "-p", "x86-64", "--server", server, *options
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "b").exists()


def judged(name: str, speedup: float) -> Judged:
    recipe = SOURCE if name == "source" else Recipe(name=name)
    agreement = Agreement(samples=1, cosine=1, max_error=0, drop=0, drop_of="x")
    return Judged(Built(recipe, Path(name), 10), agreement, speedup, False, 5)


def test_speed_is_relative_to_the_source_on_the_device():
    candidates = [judged("source", 1.0), judged("fp16", 0.5), judged("int8-static", 3.0)]
    figures = {
        "source": DeviceFigures(p50_ms=8.0, peak_rss_bytes=80),
        "fp16": DeviceFigures(error="crashed"),
        "int8-static": DeviceFigures(p50_ms=2.0, peak_rss_bytes=20),
    }
    source, fp16, int8 = judged_by(candidates, figures)
    assert (source.speedup, int8.speedup) == (1.0, 4.0)
    assert (int8.peak_bytes, int8.measured) == (20, True)
    assert fp16.device is not None
    assert (fp16.device.error, fp16.measured) == ("crashed", False)


def test_where_the_source_does_not_run_the_first_that_does_keeps_its_speed():
    candidates = [judged("source", 1.0), judged("fp32", 1.5), judged("int8-static", 3.0)]
    figures = {
        "source": DeviceFigures(error="was killed"),
        "fp32": DeviceFigures(p50_ms=6.0),
        "int8-static": DeviceFigures(p50_ms=2.0),
    }
    _, fp32, int8 = judged_by(candidates, figures)
    assert (fp32.speedup, int8.speedup) == (1.5, 4.5)


def test_only_what_was_measured_refines_a_profile():
    profile = load_profile("arm64")
    rows = [
        Candidate(name="int8-static-minmax", status="chosen", reason="", speedup=2.34,
                  device=DeviceFigures(p50_ms=1)),
        Candidate(name="int8-static-entropy", status="qualified", reason="", speedup=2.2,
                  device=DeviceFigures(p50_ms=1)),
        Candidate(name="fp32", status="qualified", reason="", speedup=9.0),
        Candidate(name="int8-dynamic", status="rejected", reason="", speedup=9.0,
                  device=DeviceFigures(error="crashed")),
    ]  # fmt: skip
    after = refined(profile, rows)
    onnx = next(engine for engine in after.engines if engine.name == "onnx")
    assert onnx.speedups["int8-static"] == 2.34
    assert "fp32" not in onnx.speedups or onnx.speedups["fp32"] != 9.0
    assert "int8-dynamic" not in onnx.speedups or onnx.speedups["int8-dynamic"] != 9.0
    assert after.quantization == profile.quantization
