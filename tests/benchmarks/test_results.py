from __future__ import annotations

import onnx
import pytest

from benchmarks.__main__ import FLEET, LLM, NAMES
from benchmarks.models import MODELS
from benchmarks.readme import README, table, with_table
from benchmarks.result import Outcome, Row, read_all, write


def test_the_readme_shows_the_committed_results():
    text = README.read_text("utf-8")
    assert with_table(text, read_all()) == text, "run python -m benchmarks.readme"


def test_every_benchmark_has_a_committed_result():
    found = {result.name for result in read_all()}
    assert set(NAMES) <= found <= {*NAMES, *LLM, *FLEET}


def test_a_result_says_where_and_how_it_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.result.RESULTS", tmp_path)
    outcome = Outcome(rows=(Row("a", "1 ms"),), figures={"a_ms": 1.0})
    write("a", outcome, quick=False, seconds=1.0)
    write("b", outcome, quick=True, seconds=1.0)
    (found,) = read_all()  # quick runs are not for the README
    assert (found.name, found.command) == ("a", "python -m benchmarks a")
    assert found.machine.cores > 0 and found.commit and "onnxruntime" in found.versions
    assert "| a | 1 ms | `python -m benchmarks a` |" in table([found])


def test_only_the_part_between_the_marks_is_replaced():
    text = "before <!-- results:begin -->\nold\n<!-- results:end --> after"
    found = with_table(text, [])
    assert found.startswith("before ") and found.endswith(" after") and "old" not in found


@pytest.mark.parametrize("name", [name for name in MODELS if name != "resnet18"])
def test_benchmark_models_are_valid_and_the_same_every_time(name, tmp_path):
    first = MODELS[name](tmp_path).read_bytes()
    onnx.checker.check_model(onnx.load_from_string(first), full_check=True)
    assert MODELS[name](tmp_path).read_bytes() == first
