from __future__ import annotations

import numpy as np
import pytest

import edge_sdk
from edge_sdk.errors import DataError, WorkError
from edge_sdk.runtime.samples import run_arrays
from tests.runtime import onnx_bytes as ob
from tests.runtime.bundles import HERE, Builder, counter, spec


def scaled(path, shape=(1, 2)):
    """``y = x * k``: ``x`` of a fixed batch, ``k`` a scalar."""
    with Builder(path) as builder:
        specs = [spec("x", shape), spec("k")]
        builder.graph([ob.node("Mul", ["x", "k"], ["y"])], specs, [spec("y", shape)])
        builder.variant()
    return edge_sdk.load(path, HERE)


K = np.float32(2)
X = np.arange(6, dtype=np.float32).reshape(3, 2)


def test_equal_rank_is_one_call(tmp_path):
    found = run_arrays(scaled(tmp_path / "b", ("batch", 2)), {"x": X, "k": K})
    np.testing.assert_array_equal(found["y"], X * 2)


def test_rows_beyond_a_fixed_batch_are_run_one_by_one(tmp_path):
    found = run_arrays(scaled(tmp_path / "b"), {"x": X, "k": K})
    np.testing.assert_array_equal(found["y"], X * 2)


def test_one_rank_more_is_a_list_of_samples(tmp_path):
    found = run_arrays(scaled(tmp_path / "b"), {"x": X[:, None], "k": K})
    np.testing.assert_array_equal(found["y"], X[:, None] * 2)


def test_scalar_inputs_take_one_per_sample(tmp_path):
    scales = np.float32([1, 10, 100])
    found = run_arrays(scaled(tmp_path / "b"), {"x": X[:, None], "k": scales})
    np.testing.assert_array_equal(found["y"], X[:, None] * scales[:, None, None])


def test_labels_are_no_input(tmp_path):
    model = scaled(tmp_path / "b")
    assert "y" in run_arrays(model, {"x": X[:1], "k": K, "labels": np.arange(3)})
    with pytest.raises(DataError, match="no input of this name"):
        run_arrays(model, {"x": X[:1], "k": K, "label": np.arange(3)})


def test_different_numbers_of_samples_are_refused_with_the_counts(tmp_path):
    with pytest.raises(DataError, match="x: 3, k: 2"):
        run_arrays(scaled(tmp_path / "b"), {"x": X[:, None], "k": np.ones(2, np.float32)})


def test_no_samples_are_refused(tmp_path):
    with pytest.raises(DataError, match="at least one"):
        run_arrays(scaled(tmp_path / "b"), {"x": X[:0, None], "k": K})


def test_two_ranks_more_fit_no_stateless_model(tmp_path):
    with pytest.raises(DataError, match=r"expected float32 \[1, 2\], given float32 \[1, 1, 2\]"):
        run_arrays(scaled(tmp_path / "b"), {"x": X[:, None, None], "k": K})


def test_steps_of_a_sequence_carry_the_state(tmp_path):
    model = edge_sdk.load(counter(tmp_path / "b"), HERE)
    found = run_arrays(model, {"x": np.ones((4, 1), np.float32)})
    assert found["sum"].tolist() == [[1], [2], [3], [4]]


def test_given_state_is_the_initial_one(tmp_path):
    model = edge_sdk.load(counter(tmp_path / "b"), HERE)
    found = run_arrays(model, {"x": np.ones((2, 1), np.float32), "total": np.float32([10])})
    assert found["sum"].tolist() == [[11], [12]]


def test_each_sequence_starts_anew(tmp_path):
    model = edge_sdk.load(counter(tmp_path / "b"), HERE)
    found = run_arrays(model, {"x": np.ones((2, 3, 1), np.float32)})
    assert found["sum"].tolist() == [[[1], [2], [3]]] * 2


def test_outputs_that_differ_in_shape_are_refused(tmp_path):
    with Builder(tmp_path / "b") as builder:
        nodes = [ob.node("NonZero", ["x"], ["y"])]
        builder.graph(nodes, [spec("x", ["n"])], [spec("y", [1, "m"], "int64")])
        builder.variant()
    model = edge_sdk.load(tmp_path / "b", HERE)
    with pytest.raises(WorkError, match="differs in shape between samples"):
        run_arrays(model, {"x": np.float32([[0, 1], [1, 1]])})


def test_outputs_that_are_no_arrays_are_refused(tmp_path):
    data = ob.model(
        [ob.node("SequenceConstruct", ["x"], ["y"])],
        [ob.value("x", "float32", [1])],
        [ob.sequence_value("y", "float32")],
    )
    with Builder(tmp_path / "b") as builder:
        builder.opaque("onnx", [data], [spec("x", [1])], [spec("y", None, "seq(tensor(float))")])
        builder.variant()
    model = edge_sdk.load(tmp_path / "b", HERE)
    assert [item.tolist() for item in model.run({"x": [1.0]})["y"]] == [[1]]
    with pytest.raises(WorkError, match="no array"):
        run_arrays(model, {"x": np.ones((2, 1), np.float32)})
