from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import DataError
from edge_sdk.runtime.inputs import check_inputs, dimensions
from tests.runtime.bundles import spec

IMAGE = spec("image", ["batch", 3, "h"])


def test_array_that_fits_is_passed_on_uncopied():
    array = np.zeros((2, 3, 4), np.float32)
    assert check_inputs([IMAGE], {"image": array})["image"] is array


def test_arrays_come_in_the_signatures_order():
    specs = [spec("a", [1]), spec("b", [1])]
    one = np.ones(1, np.float32)
    assert list(check_inputs(specs, {"b": one, "a": one})) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("int32", "int64"),
        ("uint8", "int32"),
        ("float16", "float32"),
        ("float32", "float64"),
    ],
)
def test_lossless_widening_is_done(given, wanted):
    found = check_inputs([spec("x", [2], wanted)], {"x": np.array([1, 2], given)})["x"]
    assert found.dtype == wanted
    assert found.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("float64", "float32"),
        ("int64", "int32"),
        ("int32", "float32"),
        ("bool", "float32"),
        ("int8", "bool"),
        ("float32", "int64"),
        ("int8", "uint8"),
        ("float32", "string"),
    ],
)
def test_other_dtypes_are_refused_with_both_named(given, wanted):
    with pytest.raises(DataError) as error:
        check_inputs([spec("x", ["n"], wanted)], {"x": np.ones(2, given)})
    assert error.value.message == f"expected {wanted} [n], given {given} [2]"
    assert error.value.where == "input 'x'"


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float32", [0.1, 2]),
        ("float32", [1, 2]),
        ("int64", [1, 2]),
        ("uint8", [0, 255]),
        ("bool", [True, False]),
        ("string", ["a", "b"]),
    ],
)
def test_python_lists_take_the_inputs_dtype(dtype, value):
    found = check_inputs([spec("x", [2], dtype)], {"x": value})["x"]
    assert found.dtype == (object if dtype == "string" else dtype)
    assert found.tolist() == (pytest.approx(value) if dtype == "float32" else value)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("uint8", [0, 256]),
        ("int64", [0.5, 1]),
        ("float32", [2**24 + 1, 0]),
        ("float32", [1e300, 0]),
        ("float32", [True, False]),
        ("bool", [1, 0]),
        ("float32", ["a", "b"]),
        ("float32", [[1], [2, 3]]),
        ("int64", [2**70, 0]),
    ],
)
def test_python_values_that_do_not_fit_are_refused(dtype, value):
    with pytest.raises(DataError, match=f"expected {dtype}"):
        check_inputs([spec("x", [2], dtype)], {"x": value})


def test_scalar_input_takes_a_python_number():
    found = check_inputs([spec("rate", (), "int64")], {"rate": 16000})["rate"]
    assert found.shape == ()
    assert found.dtype == "int64"


def test_unknown_name_suggests_the_close_one():
    with pytest.raises(DataError) as error:
        check_inputs([IMAGE], {"imgae": np.zeros((1, 3, 1), np.float32)})
    assert "image: float32 [batch, 3, h]" in error.value.message
    assert error.value.where == "input 'imgae'"
    assert error.value.remedy == "did you mean 'image'?"


def test_missing_input_is_named_with_its_signature():
    with pytest.raises(DataError, match=r"given nothing, expected image: float32 \[batch, 3, h\]"):
        check_inputs([IMAGE], {})


def test_optional_input_may_be_absent():
    optional = TensorSpec(name="x", dtype="float32", shape=(1,), required=False)
    assert check_inputs([optional], {}) == {}


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5), (2, 4, 4)])
def test_wrong_shape_shows_expected_and_given(shape):
    with pytest.raises(DataError) as error:
        check_inputs([IMAGE], {"image": np.zeros(shape, np.float32)})
    given = ", ".join(map(str, shape))
    assert error.value.message == f"expected float32 [batch, 3, h], given float32 [{given}]"


def test_symbolic_dimension_must_agree_across_inputs():
    specs = [spec("ids", ["batch", "seq"]), spec("mask", ["batch", "seq"])]
    feeds = {"ids": np.zeros((1, 4), np.float32), "mask": np.zeros((1, 5), np.float32)}
    with pytest.raises(DataError, match="mask") as error:
        check_inputs(specs, feeds)
    assert error.value.remedy == "'seq' is 4 in 'ids' and 5 here"


def test_placeholders_for_unknown_are_no_names():
    image = spec("x", ["?", 3, "?", "?"])
    feeds = {"x": np.zeros((1, 3, 48, 192), np.float32)}
    assert check_inputs([image], feeds)["x"] is feeds["x"]
    assert dimensions([image], feeds) == {}


def test_unknown_rank_takes_any_shape():
    free = TensorSpec(name="x", dtype="float32", shape=None)
    assert check_inputs([free], {"x": np.zeros((1, 2), np.float32)})["x"].shape == (1, 2)


def test_dtype_unknown_to_numpy_is_left_to_the_engine():
    value = np.zeros(2, np.uint16)
    assert check_inputs([spec("x", [2], "float8e4m3fn")], {"x": value})["x"] is value


def test_nan_is_refused_with_its_count():
    array = np.array([1, np.nan, np.nan], np.float32)
    with pytest.raises(DataError, match="2 of 3 values are NaN") as error:
        check_inputs([spec("x", ["n"])], {"x": array})
    assert error.value.where == "input 'x'"


def test_nan_may_be_allowed():
    array = np.array([np.nan], np.float32)
    assert check_inputs([spec("x", ["n"])], {"x": array}, nan="allow")["x"] is array


def test_infinity_and_emptiness_are_not_nan():
    for array in (np.array([np.inf, -np.inf], np.float32), np.zeros(0, np.float32)):
        assert check_inputs([spec("x", ["n"])], {"x": array})["x"] is array


def test_dimensions_of_a_call():
    feeds = {"image": np.zeros((2, 3, 9), np.float32)}
    assert dimensions([IMAGE], feeds) == {"batch": 2, "h": 9}
    assert dimensions([spec("x", ["x.0", 3, 9])], {"x": feeds["image"]}) == {"x.0": 2}


def test_bare_array_is_told_that_inputs_have_names():
    with pytest.raises(DataError, match="mapping from name to array, given ndarray") as error:
        check_inputs([IMAGE], np.zeros(3, np.float32))
    assert "image" in error.value.remedy
