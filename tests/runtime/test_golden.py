from __future__ import annotations

import numpy as np
import pytest

import edge_sdk
from edge_sdk.bundle import record as rec
from edge_sdk.errors import BundleError, EngineError
from tests.runtime import onnx_bytes as ob
from tests.runtime.bundles import HERE, Builder, spec


def doubler(
    path, expected, *, given=(1, 2), output="y", graph="main", atol=0.1, rtol=0.0, stride=1
):
    """``y = x + x`` with one golden case."""
    with Builder(path) as builder:
        x, y = spec("x", ["n"]), spec("y", ["n"])
        builder.graph([ob.node("Add", ["x", "x"], ["y"])], [x], [y])
        case = rec.GoldenCase(
            graph=graph,
            inputs={"x": builder.array(np.float32(given))},
            outputs={output: builder.array(np.float32(expected))},
            atol=atol,
            rtol=rtol,
            stride=stride,
        )
        builder.variant(golden=(case,))
    return edge_sdk.load(path, HERE)


def test_passes_within_tolerance_and_names_the_worst(tmp_path):
    found = doubler(tmp_path / "b", [2.0, 4.05]).self_test()
    assert found.cases == 1
    assert (found.worst.graph, found.worst.output) == ("main", "y")
    assert found.worst.error == pytest.approx(0.05, abs=1e-6)
    assert found.worst.share == pytest.approx(0.5, abs=1e-5)


def test_relative_tolerance_counts(tmp_path):
    assert doubler(tmp_path / "b", [2.0, 4.3], atol=0.0, rtol=0.1).self_test().worst.share < 1


def test_deviation_beyond_tolerance_fails_with_output_and_numbers(tmp_path):
    with pytest.raises(EngineError, match=r"differs .* by 0\.3, 3 times") as error:
        doubler(tmp_path / "b", [2.0, 4.3]).self_test()
    assert error.value.where == "self-test, graph 'main', output 'y'"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_expected_nan_and_infinity_agree_with_themselves_only(tmp_path, value):
    with pytest.raises(EngineError, match="times the tolerance"):
        doubler(tmp_path / "finite", [2.0, value]).self_test()
    same = doubler(tmp_path / "same", [2.0, value], given=[1, value])
    assert same.self_test().worst.share == 0


def test_only_every_so_manieth_element_of_a_row_is_compared(tmp_path):
    given = [1, 2, 3, 4, 5]
    kept = doubler(tmp_path / "kept", [2, 6, 10], given=given, stride=2)
    assert kept.self_test().worst.error == 0
    with pytest.raises(EngineError, match=r"differs .* by 1, "):
        doubler(tmp_path / "wrong", [2, 6, 11], given=given, stride=2).self_test()
    with pytest.raises(EngineError, match="shape"):
        doubler(tmp_path / "short", [2, 6], given=given, stride=2).self_test()


def test_zero_tolerance_demands_equality(tmp_path):
    assert doubler(tmp_path / "same", [2, 4], atol=0.0).self_test().worst.share == 0
    with pytest.raises(EngineError):
        doubler(tmp_path / "other", [2, 4.001], atol=0.0).self_test()


def test_other_shape_fails(tmp_path):
    with pytest.raises(EngineError, match="shape"):
        doubler(tmp_path / "b", [2.0]).self_test()


@pytest.mark.parametrize("names", [{"output": "z"}, {"graph": "other"}])
def test_case_that_names_nothing_is_a_bundle_error(tmp_path, names):
    with pytest.raises(BundleError, match="names no"):
        doubler(tmp_path / "b", [2, 4], **names).self_test()


def test_array_outside_its_blob_is_a_bundle_error(tmp_path):
    with Builder(tmp_path / "b") as builder:
        x, y = spec("x", ["n"]), spec("y", ["n"])
        builder.graph([ob.node("Add", ["x", "x"], ["y"])], [x], [y])
        array = rec.ArrayRef(blob=builder.blob(b"1234"), dtype="float32", shape=(1,), offset=1)
        case = rec.GoldenCase(graph="main", inputs={"x": array}, outputs={}, atol=0, rtol=0)
        builder.variant(golden=(case,))
    with pytest.raises(BundleError, match="at byte 1 is not inside it"):
        edge_sdk.load(tmp_path / "b", HERE).self_test()


def test_no_cases_is_no_failure(tmp_path):
    with Builder(tmp_path / "b") as builder:
        builder.graph([ob.node("Neg", ["x"], ["y"])], [spec("x")], [spec("y")])
        builder.variant()
    found = edge_sdk.load(tmp_path / "b", HERE).self_test()
    assert (found.cases, found.worst) == (0, None)
