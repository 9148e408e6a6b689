"""Residual sums that onnxruntime would fuse into its slow kernel."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converters.passes.residual_sum import ResidualSum
from tests.passes.models import as_loaded, graph, improved, normal, ops, untouched

BLOCK = """
    m = MatMul (x, w)
    b = Add (m, c)
    r = Add (b, x)
    y = LayerNormalization <axis = -1> (r, s, c)
"""


def block(body: str = BLOCK, outputs: str = "float[N,T,64] y") -> ir.Model:
    return graph(
        f"(float[N,T,64] x) => ({outputs})",
        body,
        w=normal(64, 64),
        c=normal(64),
        s=normal(64),
    )


def test_the_slow_kernel_is_not_fused_any_more() -> None:
    before = block()
    after = improved(ResidualSum(), before)
    assert "SkipLayerNormalization" in ops(as_loaded(before))
    assert "SkipLayerNormalization" not in ops(as_loaded(after))
    assert ops(after)["Sum"] == 1


def test_a_residual_that_is_also_an_output_keeps_its_name() -> None:
    model = block(outputs="float[N,T,64] y, float[N,T,64] r")
    assert ops(improved(ResidualSum(), model))["Sum"] == 1


def test_works_inside_a_branch() -> None:
    branch = BLOCK.replace("y =", "o =")
    model = graph(
        "(bool q, float[N,T,64] x) => (float[N,T,64] y)",
        f"""
        y = If (q) <
            then_branch = a () => (float[N,T,64] o) {{ {branch} }},
            else_branch = e () => (float[N,T,64] p) {{ p = Relu (x) }}
        >
        """,
        w=normal(64, 64),
        c=normal(64),
        s=normal(64),
    )
    for condition in (True, False):
        feeds = {"q": np.array(condition), "x": normal(2, 5, 64)}
        assert ops(improved(ResidualSum(), model, feeds))["Sum"] == 1


def test_the_bias_of_a_layer_and_other_additions_stay() -> None:
    assert untouched(
        ResidualSum(),
        block("m = MatMul (x, w) r = Add (m, c) y = LayerNormalization <axis = -1> (r, s, c)"),
    )
    assert untouched(ResidualSum(), block("m = MatMul (x, w) r = Add (m, x) y = Relu (r)"))
