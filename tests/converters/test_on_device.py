"""Finalists of every kind of model, measured by what a device measures with: here, for once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec.structs import replace

from converters import convert
from converters.choose import Judged, Limits
from converters.on_device import judged_by, measure_finalists
from converters.recipes import SOURCE
from converters.report import Report
from converters.workshop import Built
from device_profiles.loader import profile_path
from edge_sdk.bundle.measurements import Candidate, DeviceFigures
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.record import Agreement, Recipe
from edge_sdk.runtime.trial import Question, measure
from tests.cli import models
from tests.decoder.speakers import speaker, write_text
from tests.decoder.test_job import made
from tests.seq2seq.fixtures.archive import unpack
from tests.seq2seq.inputs import FOLDER
from tests.seq2seq.test_job import pairs, profile

pytestmark = pytest.mark.converts
SOURCES = ("source", "fp32")
NOTE = "the finalists' speed and memory are those of this machine"


@dataclass
class Here:
    """A device that is this machine, where the source always takes twice as long as the others.

    Attributes:
        refused: Recipes that it does not run, by how their names begin.
        asked: What it was asked about, call by call.
    """

    refused: tuple[str, ...] = ()
    asked: list[list[str]] = field(default_factory=list)
    name: str = "this machine"

    def __call__(self, bundles: Mapping[str, Path], seconds: float) -> dict[str, DeviceFigures]:
        self.asked.append(list(bundles))
        return {
            name: DeviceFigures(error="was killed")
            if self.refused and name.startswith(self.refused)
            else replace(measure(Question(path, 0.05)), p50_ms=2.0 if name in SOURCES else 1.0)
            for name, path in bundles.items()
        }


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    return write_text(speaker(), tmp_path_factory.mktemp("data") / "data.jsonl")


def rows_of(report: Report) -> dict[str, Candidate]:
    [variant] = report.variants
    return {row.name: row for row in variant.report.candidates}


def test_a_dialogue_models_answers_decide(text, tmp_path):
    here = Here()
    report = made(speaker(), tmp_path, data=text, max_drop=0.9, measurer=here).report
    rows = {row.name: row for row in report.candidates}
    assert here.asked[0][0] == "fp32", "what the others are compared with"
    assert report.decisive
    assert NOTE in report.notes
    measured = rows[report.chosen].device
    assert measured.peak_rss_bytes > 10 << 20
    assert rows[report.chosen].decoder.tokens_per_second == round(measured.tokens_per_second, 2)
    assert rows["fp32"].speedup == 1.0
    assert {row.speedup for row in report.candidates if row.device and row.name != "fp32"} == {2.0}


def test_a_dialogue_models_call_is_an_answer(text, tmp_path):
    made(speaker(), tmp_path, data=text, recipe='name = "int4-b32"')
    found = measure(Question(tmp_path / "bundle", 0.05))
    assert found.error is None
    assert 0 < found.ttft_ms < found.p50_ms <= found.p95_ms
    assert found.tokens_per_second > 0
    assert found.calls >= 2


def test_what_a_device_says_of_one_candidate_is_true_of_its_format(text, tmp_path):
    here = Here(refused=("int4-b32",))
    report = made(speaker(), tmp_path, data=text, max_drop=0.9, measurer=here).report
    same = re.compile(r"int4-b32(-clip|-gptq)?")
    asked = [name for names in here.asked for name in names if same.fullmatch(name)]
    assert len(asked) == 1
    rows = [row for row in report.candidates if same.fullmatch(row.name)]
    assert len(rows) > 1
    assert {row.reason for row in rows if row.agreement} == {
        "does not run on the device: was killed"
    }
    assert not report.chosen.startswith("int4-b32")


def test_the_recipe_of_a_dialogue_models_base_is_measured_too(text, tmp_path):
    made(speaker(), tmp_path / "base", data=text, recipe='name = "int4-b32"')
    base = open_bundle(tmp_path / "base" / "bundle")
    options = {"data": text, "base": base, "max_drop": 9.0}
    report = made(speaker(), tmp_path / "kept", measurer=Here(), **options).report
    rows = {row.name: row for row in report.candidates}
    assert report.reason == "recipe of the base, and its unchanged blocks"
    assert rows["int4-b32"].device.tokens_per_second > 0
    assert rows["int4-b32"].speedup and rows["fp32"].device
    lost = made(speaker(), tmp_path / "lost", measurer=Here(("int4-b32",)), **options).report
    assert "the base's recipe lost: does not run on the device" in lost.reason


def test_the_recipe_of_a_base_is_measured_too(tmp_path):
    lean = tmp_path / "lean.toml"
    few = 'recipes = ["int8-static", "fp32"]'
    lean.write_text(re.sub(r"recipes = \[.*\]", few, profile_path("x86-64").read_text()))
    source, base = models.classifier(tmp_path), tmp_path / "base"
    data = source.parent / "data.npz"
    first = convert(source, [str(lean)], base, data=data)
    options = {"data": data, "base": base}
    kept = convert(source, [str(lean)], tmp_path / "kept", measurer=Here(), **options)
    rows = rows_of(kept)
    [variant] = kept.variants
    assert variant.report.chosen == first.variants[0].report.chosen != "source"
    assert rows[variant.report.chosen].device.p50_ms > 0
    assert rows["source"].device.p50_ms > 0
    assert NOTE in variant.report.notes
    refused = Here((variant.report.chosen,))
    lost = convert(source, [str(lean)], tmp_path / "lost", measurer=refused, **options)
    assert "the base's recipe lost" in lost.variants[0].report.reason


def test_an_encoder_decoder_models_pairs_are_measured(tmp_path):
    source = unpack(FOLDER / "t5.tar.xz", tmp_path / "words")
    board = profile(tmp_path, "arm64", ["int8-dynamic"], ["int8-block"])
    here, data = Here(), pairs(tmp_path / "pairs.jsonl")
    report = convert(source, [str(board)], tmp_path / "b", data=data, max_drop=0.05, measurer=here)
    [variant] = report.variants
    assert NOTE in variant.report.notes
    assert rows_of(report)[variant.report.chosen].device.p50_ms > 0
    assert here.asked[0][0] == "source"


def judged(name: str, speedup: float, size: int = 10) -> Judged:
    recipe = SOURCE if name == "source" else Recipe(name=name)
    agreement = Agreement(samples=1, cosine=1, max_error=0, drop=0, drop_of="x")
    return Judged(Built(recipe, Path(name), size), agreement, speedup, False, 5)


def test_candidates_move_up_where_finalists_do_not_run():
    names = [f"int8-{letter}" for letter in "abcde"]
    found = {name: judged(name, 9.0 - i) for i, name in enumerate(names)}
    asked = []

    def device(candidates):
        asked.append([c.name for c in candidates])
        return judged_by(
            candidates,
            {
                c.name: DeviceFigures(error="crashed")
                if c.name in names[:2]
                else DeviceFigures(p50_ms=2.0, peak_rss_bytes=1)
                for c in candidates
            },
        )

    limits = Limits(max_drop=1, budget_bytes=100, source_bytes=10, size_exponent=0)
    measure_finalists(found, limits, "source", device)
    assert asked == [names[:3], [names[2], *names[3:]]], "beside what ran before"
    assert [c.name for c in found.values() if c.measured] == names[2:]
