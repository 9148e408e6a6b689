"""Each operator between quantized values: at most a step or two from ONNX Runtime's."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from converters.litert import lower
from tests.litert.agreement import computed, expected, network, operators

pytestmark = pytest.mark.converts

R = np.random.default_rng(13)
STEP = np.float32(0.05)


def f(*shape: int) -> NDArray[np.float32]:
    return R.standard_normal(shape).astype(np.float32)


IMAGE = f(2, 4, 8, 8)
WEIGHT = """wq = DequantizeLinear<axis = 0>(w, ws) bq = DequantizeLinear<axis = 0>(b, bs) """
CONV = {
    "w": R.integers(-127, 128, (6, 4, 3, 3)).astype(np.int8),
    "ws": np.linspace(0.002, 0.004, 6, dtype=np.float32),
    "b": R.integers(-500, 500, 6).astype(np.int32),
    "bs": np.linspace(0.002, 0.004, 6, dtype=np.float32) * STEP,
}
DENSE = {
    "w": R.integers(-127, 128, (6, 8)).astype(np.int8),
    "ws": np.linspace(0.002, 0.004, 6, dtype=np.float32),
    "b": R.integers(-500, 500, 6).astype(np.int32),
    "bs": np.linspace(0.002, 0.004, 6, dtype=np.float32) * STEP,
}
# What is between the quantized operand ``v`` (and ``u``) and the quantized result ``r``,
# and the kernels that must do it.
CASES: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "conv": (WEIGHT + "r = Conv(v, wq, bq)", CONV, {"CONV_2D"}),
    "conv relu": (WEIGHT + "c = Conv(v, wq, bq) r = Relu(c)", CONV, {"CONV_2D"}),
    "conv padded": (
        WEIGHT + "r = Conv<pads = [1, 0, 1, 0], strides = [2, 2]>(v, wq, bq)",
        CONV,
        {"PAD", "CONV_2D"},
    ),
    "gemm": (
        WEIGHT + "g = GlobalAveragePool(v) l = Reshape(v, flat) r = Gemm<transB = 1>(l, wq, bq)",
        {**DENSE, "flat": np.array([-1, 8])},
        {"RESHAPE", "FULLY_CONNECTED"},
    ),
    "add": ("r = Add(v, u)", {}, {"ADD"}),
    "mul": ("r = Mul(v, u)", {}, {"MUL"}),
    "concat": ("r = Concat<axis = 1>(v, u)", {}, {"QUANTIZE", "CONCATENATION"}),
    "max pool": ("r = MaxPool<kernel_shape = [2, 2]>(v)", {}, {"MAX_POOL_2D", "QUANTIZE"}),
    "max pool padded": (
        "r = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]>(v)",
        {},
        {"MAX_POOL_2D", "PADV2", "QUANTIZE"},
    ),
    "average pool": (
        "r = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(v)",
        {},
        {"AVERAGE_POOL_2D", "QUANTIZE"},
    ),
    "global average": ("r = GlobalAveragePool(v)", {}, {"MEAN"}),
    "relu": ("r = Relu(v)", {}, {"RELU"}),
    "leaky relu": ("r = LeakyRelu<alpha = 0.2>(v)", {}, {"LEAKY_RELU"}),
    "sigmoid": ("r = Sigmoid(v)", {}, {"LOGISTIC", "QUANTIZE"}),
    "tanh": ("r = Tanh(v)", {}, {"TANH", "QUANTIZE"}),
    "transpose": (
        "t = Transpose<perm = [0, 2, 3, 1]>(v) r = Add(t, t)",
        {},
        {"ADD"},
    ),
    "slice": (
        "r = Slice(v, s, e, a)",
        {"s": np.array([1]), "e": np.array([3]), "a": np.array([1])},
        {"STRIDED_SLICE", "QUANTIZE"},
    ),
    "pad": ("r = Pad(v, p)", {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, {"PAD", "QUANTIZE"}),
    "resize": (
        'r = Resize<mode = "nearest">(v, , s)',
        {"s": np.array([1, 1, 2, 2], np.float32)},
        {"RESIZE_NEAREST_NEIGHBOR", "QUANTIZE"},
    ),
    "depth to space": ("r = DepthToSpace<blocksize = 2>(v)", {}, {"DEPTH_TO_SPACE", "QUANTIZE"}),
}


def graph(body: str, constants: dict[str, Any], dtype: str) -> ir.Model:
    """``body`` between quantized values of scales that differ."""
    middle = 128 if dtype == "uint8" else 0
    pairs = """
        xq = QuantizeLinear(x, xs, xz) v = DequantizeLinear(xq, xs, xz)
        zq = QuantizeLinear(z, zs, zz) u = DequantizeLinear(zq, zs, zz)
    """
    ends = "rq = QuantizeLinear(r, rs, rz) y = DequantizeLinear(rq, rs, rz)"
    scales: dict[str, Any] = {
        "xs": STEP,
        "xz": np.array(middle + 3, dtype),
        "zs": np.float32(0.03),
        "zz": np.array(middle - 9, dtype),
        "rs": np.float32(0.04),
        "rz": np.array(middle + 1, dtype),
    }
    feeds = {"x": IMAGE, "z": IMAGE}
    return network(pairs + body + " " + ends, feeds, **scales, **constants)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("name", CASES)
def test_operator_computes_with_codes(name: str, dtype: str) -> None:
    body, constants, kernels = CASES[name]
    model = graph(body, constants, dtype)
    feeds = {"x": IMAGE, "z": f(*IMAGE.shape)}
    file = lower(model)
    moved = {"TRANSPOSE", "RESHAPE"}
    assert set(operators(file)) - moved == (kernels | {"QUANTIZE", "DEQUANTIZE"}) - moved
    for delegate in (False, True):
        steps = np.abs(computed(file, feeds, delegate=delegate)["y"] - expected(model, feeds)["y"])
        assert steps.max() <= 2.01 * 0.04  # two codes of the result
