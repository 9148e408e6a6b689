"""Constant factors disappear into the weights before them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converters.passes.fold_attention_scale import FoldAttentionScale
from converters.passes.infer_shapes import InferShapes
from tests.passes.models import graph, improved, normal, ops, untouched

HEADS = {"shape": np.array([0, 0, 2, 4]), "root": np.float32(np.sqrt(2)), "half": np.float32(0.5)}
QUERY = """
    qm = MatMul (x, wq)
    qb = Add (bq, qm)
    qh = Reshape (qb, shape)
    q = Transpose <perm = [0, 2, 1, 3]> (qh)
"""
KEY = """
    km = MatMul (x, wk)
    kb = Add (km, bk)
    kh = Reshape (kb, shape)
    k = Transpose <perm = [0, 2, 3, 1]> (kh)
"""
SCALED = {
    "scores": "s0 = MatMul (q, k) s = Mul (half, s0)",
    "scores divided": "s0 = MatMul (q, k) s = Div (s0, root)",
    "query": "q2 = Mul (q, half) s = MatMul (q2, k)",
    "key": "k2 = Div (k, root) s = MatMul (q, k2)",
    "both": "q2 = Mul (q, root) k2 = Div (k, root) s = MatMul (q2, k2)",
}


def attention(scaled: str, extra: str = "", outputs: str = "float[N,2,T,T] y") -> ir.Model:
    return graph(
        f"(float[N,T,8] x) => ({outputs})",
        f"{QUERY} {KEY} {scaled} {extra} y = Softmax (s)",
        **HEADS,
        **{name: normal(8, 8, seed=i) for i, name in enumerate(("wq", "wk"))},
        **{name: normal(8, seed=i) for i, name in enumerate(("bq", "bk"))},
    )


@pytest.mark.parametrize("place", SCALED)
def test_attention_scale_is_free_wherever_it_stood(place: str) -> None:
    after = improved(FoldAttentionScale(), attention(SCALED[place]))
    assert not {"Mul", "Div"} & set(ops(after))


@pytest.mark.parametrize(
    ("layer", "weight", "signature"),
    [
        (
            "c = Conv (x, w, b) y = Mul (c, half)",
            (8, 3, 1, 1),
            "(float[N,3,5,5] x) => (float[N,8,5,5] y)",
        ),
        (
            "c = ConvTranspose (x, w, b) y = Mul (c, half)",
            (3, 8, 1, 1),
            "(float[N,3,5,5] x) => (float[N,8,5,5] y)",
        ),
        (
            "c = Gemm <alpha = 2.0, beta = 3.0> (x, w, b) y = Div (c, root)",
            (4, 8),
            "(float[N,4] x) => (float[N,8] y)",
        ),
        ("c = Gemm (x, w) y = Div (c, root)", (4, 8), "(float[N,4] x) => (float[N,8] y)"),
    ],
)
def test_other_layers_take_factors_too(layer: str, weight: tuple[int, ...], signature: str) -> None:
    model = graph(signature, layer, w=normal(*weight), b=normal(8), **HEADS)
    after = improved(FoldAttentionScale(), model)
    assert len(after.graph) == 1
    assert after.graph.outputs[0].name == "y"


def test_a_weight_shared_with_another_layer_is_copied_and_not_changed() -> None:
    model = graph(
        "(float[N,8] x) => (float[N,8] y, float[N,8] z)",
        "c = MatMul (x, w) y = Mul (c, half) z = MatMul (x, w)",
        w=normal(8, 8),
        **HEADS,
    )
    assert ops(improved(FoldAttentionScale(), model)) == {"MatMul": 2}


def test_folds_inside_a_branch() -> None:
    model = graph(
        "(bool q, float[N,8] x) => (float[N,8] y)",
        """
        y = If (q) <
            then_branch = t () => (float[N,8] o) { c = MatMul (x, w) o = Mul (c, half) },
            else_branch = e () => (float[N,8] p) { p = MatMul (x, w) }
        >
        """,
        w=normal(8, 8),
        **HEADS,
    )
    for condition in (True, False):
        feeds = {"q": np.array(condition), "x": normal(2, 8)}
        assert ops(improved(FoldAttentionScale(), model, feeds)) == {"If": 1, "MatMul": 2}


@pytest.mark.parametrize(
    "model",
    [
        attention(
            SCALED["scores"],
            extra="other = Relu (s0)",
            outputs="float[N,2,T,T] y, float[N,2,T,T] other",
        ),
        attention(SCALED["query"], extra="", outputs="float[N,2,T,T] y, float[N,2,T,4] q"),
        graph("(float[N,8] x) => (float[N,8] y)", "c = Relu (x) y = Mul (c, half)", **HEADS),
        graph(
            "(float[N,8] x) => (float[N,8] y)",
            "m = MatMul (x, w) a = Add (m, x) y = Mul (a, half)",
            w=normal(8, 8),
            **HEADS,
        ),
        graph(
            "(float[8] x) => (float[1,8] y)",
            "m = MatMul (x, w) y = Mul (m, one)",
            w=normal(8, 8),
            one=normal(1, 1),
        ),
    ],
    ids=["used elsewhere", "also an output", "no layer", "sum of two", "rank grows"],
)
def test_left_alone(model: ir.Model) -> None:
    InferShapes()(model)
    assert untouched(FoldAttentionScale(), model)
