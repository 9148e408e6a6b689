"""Whole networks: how few operators are left, and every size that an open axis may have."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from converters.litert import lower
from tests.litert.agreement import assert_agrees, network, operators
from tests.passes.networks import convolutional, encoder

pytestmark = pytest.mark.converts

R = np.random.default_rng(3)


def f(*shape: int) -> NDArray[np.float32]:
    return R.standard_normal(shape).astype(np.float32)


RESIDUAL = """
    a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1) r = Relu(a)
    b = Conv<pads = [1, 1, 1, 1]>(r, w2, b2) s = Add(b, r) t = Relu(s)
    p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(t)
    c = Conv<group = 8, pads = [1, 1, 1, 1]>(p, w3, b3) h = HardSigmoid(c) m = Mul(c, h)
    k = Concat<axis = 1>(m, p) u = Resize<mode = "nearest", nearest_mode = "floor",
        coordinate_transformation_mode = "asymmetric">(k, , scales)
    z = Pad(u, pads) n = Mul(z, gain) g = GlobalAveragePool(n) l = Flatten(g)
    y = Gemm(l, w4, b4)
"""


def residual() -> tuple[ir.Model, dict[str, NDArray[np.float32]]]:
    feeds = {"x": f(1, 3, 12, 12)}
    model = network(
        RESIDUAL,
        feeds,
        free="0",
        w1=f(8, 3, 3, 3) * 0.3,
        b1=f(8),
        w2=f(8, 8, 3, 3) * 0.1,
        b2=f(8),
        w3=f(8, 1, 3, 3) * 0.3,
        b3=f(8),
        scales=np.array([1, 1, 2, 2], np.float32),
        pads=np.array([0, 0, 1, 0, 0, 0, 0, 1]),
        gain=f(16, 1, 1),
        w4=f(16, 5),
        b4=f(5),
    )
    return model, feeds


def test_convolutional_network_is_transposed_at_its_input_only() -> None:
    model, feeds = residual()
    found = operators(assert_agrees(model, feeds, {"x": f(3, 3, 12, 12)}))
    assert found["TRANSPOSE"] == 1


def test_biases_and_clamps_are_part_of_their_layers() -> None:
    model, _ = residual()
    found = operators(lower(model))
    assert found["RELU"] == 0
    assert found["ADD"] == 2  # the residual, and the one inside HardSigmoid


def test_channels_stay_last_up_to_the_output_of_an_image() -> None:
    body = "a = Conv(x, w) b = Sigmoid(a) c = Conv(b, v) d = Sub(c, b) y = Conv(d, v)"
    feeds = {"x": f(1, 3, 8, 8)}
    model = network(body, feeds, w=f(4, 3, 1, 1), v=f(4, 4, 1, 1))
    assert operators(assert_agrees(model, feeds))["TRANSPOSE"] == 2


def test_network_that_is_channels_last_already_loses_its_transpositions() -> None:
    body = """a = Transpose<perm = [0, 3, 1, 2]>(x) b = Conv(a, w) c = Relu(b)
        d = Transpose<perm = [0, 2, 3, 1]>(c) y = MatMul(d, v)"""
    feeds = {"x": f(1, 8, 8, 3)}
    model = network(body, feeds, w=f(4, 3, 3, 3), v=f(4, 5))
    assert operators(assert_agrees(model, feeds))["TRANSPOSE"] == 0


@pytest.mark.parametrize("tokens", [7, 32])
@pytest.mark.parametrize("batch", [1, 3])
def test_encoder_runs_at_every_batch_and_length(batch: int, tokens: int) -> None:
    assert_agrees(encoder(), {"x": f(batch, tokens, 64)})


def test_encoder_becomes_few_operators() -> None:
    found = operators(lower(encoder()))
    assert found["FULLY_CONNECTED"] == 6
    assert found["BATCH_MATMUL"] == 2
    assert found["GELU"] == 1
    assert found["TRANSPOSE"] == 4
    assert found["SHAPE"] == 1  # one look at the input says all open sizes


def test_gelu_written_out_is_one_operator() -> None:
    body = "a = Div(x, root) e = Erf(a) o = Add(e, one) m = Mul(x, o) y = Mul(m, half)"
    feeds = {"x": f(2, 9)}
    numbers = {"root": np.sqrt(2), "one": 1, "half": 0.5}
    constants: dict[str, Any] = {name: np.float32(number) for name, number in numbers.items()}
    assert operators(assert_agrees(network(body, feeds, **constants), feeds)) == {"GELU": 1}


MASK = """
    n = Shape(x) b = Gather(n, zero) b1 = Unsqueeze(b, v0)
    s = Gather(n, one) s1 = Unsqueeze(s, v0)
    want = Concat<axis = 0>(b1, v1, s1, s1)
    dims = Shape(want) ones = ConstantOfShape<value = int64[1] {1}>(dims)
    minus = Mul(ones, m1) is = Equal(want, minus) shape = Where(is, ones, want)
    a = Unsqueeze(mask, v12) e = Expand(a, shape) c = Cast<to = 1>(e)
    d = Sub(unit, c) t = Cast<to = 9>(d) y = Where(t, low, d)
"""


def test_mask_of_an_encoder_needs_no_arithmetic_on_sizes() -> None:
    ids = np.ones((2, 5), np.int64)
    feeds = {"x": ids, "mask": np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])}
    model = network(
        MASK,
        feeds,
        free="01",
        zero=np.int64(0),
        one=np.int64(1),
        v0=np.array([0]),
        v1=np.array([1]),
        v12=np.array([1, 2]),
        m1=np.int64(-1),
        unit=np.float32(1),
        low=np.float32(-1e9),
    )
    model.graph.inputs[1].shape = ir.Shape(model.graph.inputs[0].shape or [])
    longer = {"x": np.ones((1, 9), np.int64), "mask": np.ones((1, 9), np.int64)}
    found = operators(assert_agrees(model, feeds, longer))
    assert not {"EQUAL", "GATHER", "BROADCAST_ARGS"} & set(found)


def test_network_of_fixed_batch_agrees() -> None:
    assert_agrees(convolutional(), {"x": f(1, 3, 16, 16)})
