"""What a lowered file promises: its signature, its bytes, and errors that say what to do."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import onnx_ir as ir
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from converters.litert import lower
from edge_sdk.errors import ConversionError, UnsupportedOperatorError
from tests.litert.agreement import assert_agrees, computed, network
from tests.passes.networks import encoder

pytestmark = pytest.mark.converts

R = np.random.default_rng(9)

LOWER_AND_HASH = """
import hashlib
from converters.litert import lower
from tests.passes.networks import encoder
print(hashlib.sha256(lower(encoder(), weights="int8")).hexdigest())
"""


def f(*shape: int) -> NDArray[np.float32]:
    return R.standard_normal(shape).astype(np.float32)


def test_another_process_writes_the_same_bytes() -> None:
    other = subprocess.run(
        [sys.executable, "-c", LOWER_AND_HASH], capture_output=True, text=True, check=True
    )
    mine = hashlib.sha256(lower(encoder(), weights="int8")).hexdigest()
    assert other.stdout.strip() == mine


def test_the_model_is_not_changed() -> None:
    model = encoder()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    lower(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_constants_lie_where_kernels_can_read_them() -> None:
    file = lower(encoder())
    model = schema.Model.GetRootAs(file, 0)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    starts = [
        buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if buffer.DataLength()
    ]
    assert len(starts) > 10
    assert all(start % 64 == 0 for start in starts)


def test_equal_weights_are_stored_once() -> None:
    weight = f(64, 64)
    feeds = {"x": f(2, 64)}
    model = network("a = MatMul(x, w) y = MatMul(a, v)", feeds, w=weight, v=weight.copy())
    assert len(assert_agrees(model, feeds)) < 1.5 * weight.nbytes


def test_signature_has_the_names_of_the_source() -> None:
    feeds = {"left": f(2, 3), "right": f(2, 3)}
    model = network("sum = Add(left, right) both = Mul(left, right)", feeds, "sum both")
    interpreter = Interpreter(model_content=lower(model))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["left", "right"], "outputs": ["both", "sum"]}
    }


@pytest.mark.parametrize("dtype", ["float16", "float64", "int64", "int32", "uint8", "int8", "bool"])
def test_inputs_and_outputs_keep_their_types(dtype: str) -> None:
    feeds = {"x": (np.arange(6).reshape(2, 3) % 2).astype(dtype)}
    names = {"float64": "double"}
    model = network("y = Identity(x)", feeds, f"y:{names.get(dtype, dtype)}")
    assert_agrees(model, feeds)


def test_index_past_32_bits_is_refused_and_not_another_index() -> None:
    weight = f(5, 3)
    feeds = {"i": np.array([1, 4], np.int64)}
    model = network("y = Gather(w, i)", feeds, w=weight)
    file = assert_agrees(model, feeds)
    for far in (2**32 + 1, -(2**32) + 1):
        with pytest.raises(RuntimeError, match="out of bounds"):
            computed(file, {"i": np.array([1, far], np.int64)}, delegate=True)


def test_values_of_half_width_are_computed_in_full_width() -> None:
    feeds = {"x": f(2, 8).astype(np.float16)}
    weight = f(8, 4).astype(np.float16)
    model = network("a = MatMul(x, w) y = Tanh(a)", feeds, "y:float16", w=weight)
    assert_agrees(model, feeds, tolerance=2e-3)


def test_one_value_can_be_several_outputs() -> None:
    feeds = {"x": f(2, 3)}
    model = network("y = Relu(x) z = Identity(y) w = Identity(x)", feeds, "y z w")
    assert_agrees(model, feeds)


def test_constant_can_be_an_output() -> None:
    feeds = {"x": f(2, 3)}
    model = network("y = Relu(x) z = Identity(c)", feeds, "y z", c=f(4))
    assert_agrees(model, feeds)


def test_unknown_operator_is_named_with_a_remedy() -> None:
    feeds = {"x": f(1, 2, 4, 4)}
    model = network("a = Relu(x) y = Det(a)", feeds)
    model.graph[1].name = "the_determinant"
    with pytest.raises(UnsupportedOperatorError) as caught:
        lower(model)
    error = caught.value
    assert (error.op, error.node, error.engine) == ("Det", "the_determinant", "LiteRT")
    assert error.remedy


def test_known_operator_says_what_stands_in_the_way() -> None:
    feeds = {"x": f(2, 3, 4), "w": f(4, 3, 3)}
    model = network("y = Conv(x, w)", feeds)
    with pytest.raises(UnsupportedOperatorError, match="weight is computed at run time"):
        lower(model)


def test_integers_past_32_bits_are_refused() -> None:
    feeds = {"x": np.arange(3)}
    model = network("y = Add(x, c)", feeds, "y:int64", c=np.array([2**40]))
    with pytest.raises(ConversionError, match="past 32 bits"):
        lower(model)


def test_old_operators_are_to_be_upgraded_first() -> None:
    feeds = {"x": f(2, 3)}
    model = network("y = Relu(x)", feeds)
    model.opset_imports[""] = 11
    with pytest.raises(ConversionError, match="upgrade-opset"):
        lower(model)


def test_weights_beyond_what_a_file_holds_are_refused_with_their_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("converters.litert.flatbuffer.MAX_WEIGHTS", 10_000)
    with pytest.raises(ConversionError, match=r"weights take .* GB.* has room for") as caught:
        lower(encoder())
    assert "int8" in (caught.value.remedy or "")
