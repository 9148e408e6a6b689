from __future__ import annotations

import onnx
import pytest

from benchmarks.__main__ import ALL, NAMES
from benchmarks.models import MODELS
from benchmarks.readme import HEADLINES, PAGE, README, Headline, job_of, page, with_headlines
from benchmarks.result import Outcome, Row, read_all, write


def test_readme_and_page_show_the_committed_results():
    text, results = README.read_text("utf-8"), read_all()
    assert with_headlines(text, results) == text, "run python -m benchmarks.readme"
    assert page(results) == PAGE.read_text("utf-8"), "run python -m benchmarks.readme"


def test_the_page_has_every_row_and_the_readme_a_newcomers_few():
    rows = [row for result in read_all() for row in result.outcome.rows]
    text, few = PAGE.read_text("utf-8"), README.read_text("utf-8")
    assert all(f"| {row.what} | {row.measured} |" in text for row in rows)
    assert 8 <= sum(f"| {row.measured} |" in few for row in rows) <= len(HEADLINES) < len(rows)


def test_every_benchmark_is_about_a_job_and_every_headline_is_of_a_benchmark():
    assert {job_of(name) for name in ALL} == {"Convert", "Run", "Sync"}
    assert {line.name for line in HEADLINES} <= set(ALL)


def test_a_headline_that_means_two_rows_or_none_is_refused():
    [result] = [result for result in read_all() if result.name == "fleet.shadow"]
    for part in ("shadow updates", "no such row"):
        with pytest.raises(LookupError, match="rows of fleet"):
            Headline("fleet.shadow", part).row_of(result)


def test_every_benchmark_has_a_committed_result():
    found = {result.name for result in read_all()}
    assert set(NAMES) <= found <= set(ALL)


def test_a_result_says_where_and_how_it_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.result.RESULTS", tmp_path)
    outcome = Outcome(rows=(Row("a", "1 ms"),), figures={"a_ms": 1.0})
    write("digits", outcome, quick=False, seconds=1.0)
    write("encoder", outcome, quick=True, seconds=1.0)
    (found,) = read_all()  # quick runs are not for the README
    assert (found.name, found.command) == ("digits", "python -m benchmarks digits")
    assert found.machine.cores > 0 and found.commit and "onnxruntime" in found.versions
    assert "| a | 1 ms | `python -m benchmarks digits` |" in page([found])


def test_only_the_part_between_the_marks_is_replaced():
    text = "before <!-- results:begin -->\nold\n<!-- results:end --> after"
    found = with_headlines(text, [])
    assert found.startswith("before ") and found.endswith(" after") and "old" not in found


@pytest.mark.parametrize("name", [name for name in MODELS if name != "resnet18"])
def test_benchmark_models_are_valid_and_the_same_every_time(name, tmp_path):
    first = MODELS[name](tmp_path).read_bytes()
    onnx.checker.check_model(onnx.load_from_string(first), full_check=True)
    assert MODELS[name](tmp_path).read_bytes() == first
