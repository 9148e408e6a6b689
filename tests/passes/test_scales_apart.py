"""Scales behind dense products: the same numbers, with one scale per weight inside."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converters.passes.graph_tools import constant
from converters.passes.scales_apart import ScalesApart
from tests.passes.models import graph, normal, ops, run, untouched
from tests.passes.networks import transformed

K, N = 24, 8
CODES = np.random.default_rng(1).integers(-127, 128, (K, N), np.int8)
SCALES = np.linspace(0.001, 0.1, N, dtype=np.float32)
BIAS = normal(N)
ARRAYS = {"codes": CODES, "scales": SCALES, "bias": BIAS}


@pytest.mark.parametrize(
    ("body", "arrays"),
    [
        ("y = com.microsoft.DynamicQuantizeMatMul (x, codes, scales, , bias)", ARRAYS),
        ("y = com.microsoft.DynamicQuantizeMatMul (x, codes, scales)", ARRAYS),
        ("w = DequantizeLinear <axis = 1> (codes, scales) y = MatMul (x, w)", ARRAYS),
        ("w = DequantizeLinear <axis = -1> (codes, scales) y = Gemm (x, w, bias)", ARRAYS),
        (
            "w = DequantizeLinear <axis = 0> (codes, scales) "
            "y = Gemm <transB = 1, alpha = 0.5> (x, w, bias)",
            ARRAYS | {"codes": np.ascontiguousarray(CODES.T)},
        ),
    ],
)
def test_layer_of_floats_multiplies_afterwards(body, arrays) -> None:
    used = {name: array for name, array in arrays.items() if name in body}
    before = graph("(float[B,K] x) => (float[B,N] y)", body, **used)
    after = transformed(ScalesApart(), before)
    feeds = {"x": normal(5, K, seed=3)}
    # As they are: ONNX Runtime would compute the first form with codes of its own.
    expected, actual = (run(model, feeds, optimize=False)["y"] for model in (before, after))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)
    assert ops(after)["Mul"] == 1
    inside = [constant(value) for value in _weights(after)]
    assert [array.tolist() for array in inside if array is not None] == [1.0]


def _weights(model: ir.Model) -> list[ir.Value | None]:
    """Scales that weights are quantized with."""
    places = {"DynamicQuantizeMatMul": 2, "DequantizeLinear": 1}
    return [node.inputs[places[node.op_type]] for node in model.graph if node.op_type in places]


@pytest.mark.parametrize(
    "body",
    [
        # Integers throughout: the result is quantized.
        "w = DequantizeLinear <axis = 1> (codes, scales) p = MatMul (x, w) "
        "q = QuantizeLinear (p, step) y = DequantizeLinear (q, step)",
        # One scale for all.
        "y = com.microsoft.DynamicQuantizeMatMul (x, codes, step)",
        # Scales of rows cannot go behind the product.
        "w = DequantizeLinear <axis = 0> (codes, rows) y = MatMul (x, w)",
    ],
)
def test_other_layers_stay(body) -> None:
    arrays = ARRAYS | {"step": np.float32(0.1), "rows": np.ones(K, np.float32)}
    used = {name: array for name, array in arrays.items() if name in body}
    assert untouched(ScalesApart(), graph("(float[B,K] x) => (float[B,N] y)", body, **used))
