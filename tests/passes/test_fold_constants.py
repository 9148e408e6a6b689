"""Folding: computed once, never larger, the same bits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converters.passes.base import Context
from converters.passes.fold_constants import FoldConstants, FoldConstantsOptions
from converters.passes.infer_shapes import InferShapes
from tests.passes.models import graph, improved, normal, ops, untouched, weight_bytes

REORDERED_LSTM = """
    w0 = Slice (w, a0, a2, one)
    w1 = Slice (w, a2, a4, one)
    w2 = Concat <axis = 1> (w1, w0)
    y, h = LSTM <hidden_size = 16> (x, w2, r)
"""


def reordered_lstm(body: str = REORDERED_LSTM, inputs: str = "float[T,1,8] x") -> ir.Model:
    return graph(
        f"({inputs}) => (float[T,1,1,16] y)",
        body,
        w=normal(1, 64, 8),
        r=normal(1, 64, 16),
        a0=np.array([0]),
        a2=np.array([32]),
        a4=np.array([64]),
        one=np.array([1]),
    )


def test_lstm_weights_put_together_from_slices_become_one_initializer() -> None:
    before = reordered_lstm()
    after = improved(FoldConstants(), before)
    assert ops(after) == {"LSTM": 1}
    assert weight_bytes(after) < weight_bytes(before)


def test_constants_fold_inside_branches() -> None:
    branch = REORDERED_LSTM.replace("y, h", "v, h")
    before = reordered_lstm(
        f"""
        y = If (c) <
            then_branch = t () => (float[T,1,1,16] v) {{ {branch} }},
            else_branch = e () => (float[T,1,1,16] u) {{
                u, h2 = LSTM <hidden_size = 16> (x, w, r)
            }}
        >
        """,
        "bool c, float[T,1,8] x",
    )
    for condition in (True, False):
        feeds = {"c": np.array(condition), "x": normal(3, 1, 8)}
        assert ops(improved(FoldConstants(), before, feeds)) == {"If": 1, "LSTM": 2}


def test_branches_that_fold_to_the_same_weight_store_it_once() -> None:
    then, other = (REORDERED_LSTM.replace("y, h", f"{name}, {name}h") for name in "vu")
    other = other.replace("w0", "i0").replace("w1", "i1").replace("w2", "i2")
    before = reordered_lstm(
        f"""
        y = If (c) <
            then_branch = t () => (float[T,1,1,16] v) {{ {then} }},
            else_branch = e () => (float[T,1,1,16] u) {{ {other} }}
        >
        """,
        "bool c, float[T,1,8] x",
    )
    feeds = {"c": np.array(True), "x": normal(3, 1, 8)}
    after = improved(FoldConstants(), before, feeds)
    assert ops(after) == {"If": 1, "LSTM": 2}
    assert weight_bytes(after) < weight_bytes(before)


def test_known_dimensions_fold_though_others_are_free() -> None:
    model = graph(
        "(float[N,6] x) => (float[N,2,3] y)",
        """
        s = Shape (x)
        i = Constant <value_int = 1> ()
        width = Gather (s, i)
        three = Constant <value_int = 3> ()
        half = Div (width, three)
        zero = Constant <value_ints = [0]> ()
        h1 = Unsqueeze (half, zero)
        t1 = Constant <value_ints = [3]> ()
        n1 = Constant <value_ints = [-1]> ()
        shape = Concat <axis = 0> (n1, h1, t1)
        y = Reshape (x, shape)
        """,
    )
    assert set(ops(improved(FoldConstants(), model))) <= {"Reshape", "Constant"}


def test_a_free_dimension_does_not_fold() -> None:
    model = graph("(float[N,6] x) => (int64[2] y)", "s = Shape (x) y = Abs (s) ")
    assert untouched(FoldConstants(), model)


@pytest.mark.parametrize(
    "body",
    [
        "c = Cast <to = 1> (small) f = Mul (c, scale) y = MatMul (x, f) ",
        "f = ConstantOfShape (shape) y = MatMul (x, f) ",
        "f = DequantizeLinear (small, one) y = MatMul (x, f) ",
        "t = Transpose (table) h = MatMul (x, t) g = MatMul (h, table) y = Abs (g) ",
    ],
)
def test_what_would_grow_the_model_stays(body: str) -> None:
    model = graph(
        "(float[N,64] x) => (float[N,M] y)",
        body,
        small=np.ones((64, 64), np.int8),
        scale=normal(64),
        one=np.float32(1),
        shape=np.array([64, 64]),
        table=normal(64, 64),
    )
    before = weight_bytes(model)
    assert not FoldConstants()(model).modified
    assert weight_bytes(model) == before


def test_growth_is_allowed_on_request() -> None:
    model = graph(
        "(float[N,64] x) => (float[N,64] y)",
        "c = Cast <to = 1> (small) y = MatMul (x, c) ",
        small=np.ones((64, 64), np.int8),
    )
    assert ops(improved(FoldConstants(FoldConstantsOptions(growth=1 << 20)), model)) == {
        "MatMul": 1
    }


def test_random_numbers_and_outputs_stay() -> None:
    model = graph(
        "(float[N,4] x) => (float[N,4] y, float[4] z)",
        "r = RandomNormalLike (w) m = Mul (r, zero) y = Add (x, m) z = Abs (w)",
        w=normal(4),
        zero=np.float32(0),
    )
    assert untouched(FoldConstants(), model)


def test_a_node_the_engine_refuses_is_left_and_noted() -> None:
    model = graph(
        "(bool c, float[4] x) => (float[4] y)",
        """
        y = If (c) <
            then_branch = t () => (float[4] a) { a = Relu (x) },
            else_branch = e () => (float[4] b) { bad = Gather (w, far) b = Add (x, bad) }
        >
        """,
        w=normal(4),
        far=np.array(9),
    )
    context = Context()
    feeds = {"c": np.array(True), "x": normal(4)}
    improved(FoldConstants(context=context), model, feeds)
    assert len(context.notes) == 1
    assert "not folded" in context.notes[0]


def test_folding_after_inference_reaches_what_inference_found() -> None:
    model = graph(
        "(float[2,6] x) => (float[12] y)",
        "t = Transpose (x) s = Shape (t) p = ReduceProd <keepdims = 1> (s) y = Reshape (t, p) ",
    )
    InferShapes()(model)
    assert ops(improved(FoldConstants(), model)) == {"Transpose": 1, "Reshape": 1}
