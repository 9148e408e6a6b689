"""Operators over codes, against the same between Q/DQ pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters.passes.infer_shapes import InferShapes
from converters.passes.qoperator_to_qdq import QOperatorToQdq
from tests.passes.models import graph, improved, normal, ops, untouched

CODES = np.random.default_rng(0)
CONSTANTS: dict[str, Any] = {
    "s": np.float32(0.02),
    "z": np.uint8(128),
    "t": np.float32(0.1),
    "u": np.uint8(120),
    "w": CODES.integers(-127, 127, (6, 4, 3, 3)).astype(np.int8),
    "ws": np.linspace(0.01, 0.02, 6, dtype=np.float32),
    "wz": np.zeros(6, np.int8),
    "b": CODES.integers(-900, 900, 6).astype(np.int32),
    "m": CODES.integers(0, 255, (8, 5)).astype(np.uint8),
    "c": CODES.integers(-900, 900, 5).astype(np.int32),
}
M = "com.microsoft"
FORMS = {
    "Conv": "y = QLinearConv <pads = [1,1,1,1]> (a, s, z, w, ws, wz, t, u, b)",
    "MatMul": "y = QLinearMatMul (a, s, z, m, s, z, t, u)",
    "Gemm": f"f = Flatten (a) y = {M}.QGemm (f, s, z, m, s, z, c, t, u)",
    "Add": f"y = {M}.QLinearAdd (a, s, z, a, s, z, t, u)",
    "Mul": f"y = {M}.QLinearMul (a, s, z, a, s, z, t, u)",
    "Sigmoid": f"y = {M}.QLinearSigmoid (a, s, z, t, u)",
    "LeakyRelu": f"y = {M}.QLinearLeakyRelu <alpha = 0.2> (a, s, z, t, u)",
    "GlobalAveragePool": f"y = {M}.QLinearGlobalAveragePool (a, s, z, t, u)",
    "Concat": f"y = {M}.QLinearConcat <axis = 1> (t, u, a, s, z, a, s, z)",
    "AveragePool": f"y = {M}.QLinearAveragePool <kernel_shape = [2,2]> (a, s, z, t, u)",
}  # fmt: skip
IMAGE = (1, 4, 6, 6)
SHAPES = {"Conv": IMAGE, "AveragePool": IMAGE, "GlobalAveragePool": IMAGE}


@pytest.mark.parametrize("op", FORMS)
def test_the_same_numbers(op: str) -> None:
    shape = SHAPES.get(op, (3, 8))
    sizes = ",".join(map(str, shape))
    body = f"a = QuantizeLinear (x, s, z) {FORMS[op]} r = DequantizeLinear (y, t, u)"
    rank = ",".join(f"r{axis}" for axis in range(len(shape)))
    model = graph(f"(float[{sizes}] x) => (float[{rank}] r)", body, opset=17, **CONSTANTS)
    InferShapes()(model)
    feeds = {"x": normal(*shape)}
    step = float(CONSTANTS["t"])
    after = improved(QOperatorToQdq(), model, feeds, atol=1.01 * step)
    assert ops(after)[op] == 1
    assert not any(name.startswith(("QLinear", "QGemm")) for name in ops(after))


def test_what_gives_real_numbers_stays() -> None:
    body = f"a = QuantizeLinear (x, s, z) y = {M}.QGemm (a, s, z, m, s, z, c)"
    model = graph("(float[3,8] x) => (float[3,5] y)", body, opset=17, **CONSTANTS)
    assert untouched(QOperatorToQdq(), model)
