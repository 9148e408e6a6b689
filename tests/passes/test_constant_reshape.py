"""Computed target shapes become constants, only where they provably are the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converters.passes.constant_reshape import ConstantReshape
from converters.passes.fold_constants import FoldConstants
from converters.passes.graph_tools import constant
from converters.passes.infer_shapes import InferShapes
from tests.passes.models import graph, improved, normal, ops, untouched

CONSTANTS = {
    "i0": np.array(0),
    "i1": np.array(1),
    "v0": np.array([0]),
    "v1": np.array([1]),
    "v2": np.array([2]),
    "two": np.array([2]),
    "four": np.array([4]),
    "eight": np.array([8]),
    "minus": np.array([-1]),
}
DIMS = """
    s = Shape (x)
    g0 = Gather (s, i0)
    n = Unsqueeze (g0, v0)
    g1 = Gather (s, i1)
    t = Unsqueeze (g1, v0)
"""


def model_of(body: str, signature: str) -> ir.Model:
    model = graph(signature, body, **CONSTANTS, w=normal(8, 8))
    InferShapes()(model)
    FoldConstants()(model)
    return model


HEADS = "(float[N,T,8] x) => (float[N,T,2,4] y)"
ACCEPTED = {
    "heads": (DIMS + "k = Concat <axis = 0> (n, t, two, four)", [0, 0, 2, 4]),
    "heads, one inferred": (DIMS + "k = Concat <axis = 0> (n, minus, two, four)", [0, -1, 2, 4]),
    "a slice of the shape": (
        "s = Shape (x) b = Slice (s, v0, v2) k = Concat <axis = 0> (b, two, four)",
        [0, 0, 2, 4],
    ),
    "cast on the way": (
        """
        s = Shape (x)
        c = Cast <to = 6> (s)
        b = Slice (c, v0, v2)
        d = Cast <to = 7> (b)
        k = Concat <axis = 0> (d, two, four)
        """,
        [0, 0, 2, 4],
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_copied_dimensions_become_zero(case: str) -> None:
    body, shape = ACCEPTED[case]
    model = model_of(f"{body} y = Reshape (x, k)", HEADS)
    after = improved(ConstantReshape(), model)
    assert ops(after) == {"Reshape": 1}
    assert constant(after.graph.node(0).inputs[1]).tolist() == shape


def test_one_unknown_entry_among_positive_constants_is_inferred() -> None:
    body = DIMS + "p = Mul (n, t) k = Concat <axis = 0> (p, eight) y = Reshape (x, k)"
    after = improved(ConstantReshape(), model_of(body, "(float[N,T,8] x) => (float[M,8] y)"))
    assert ops(after) == {"Reshape": 1}
    assert constant(after.graph.node(0).inputs[1]).tolist() == [-1, 8]


ATTENTION = """
    q0 = MatMul (x, w)
    h = Concat <axis = 0> (n, minus, two, four)
    q1 = Reshape (q0, h)
    q = Transpose <perm = [0, 2, 1, 3]> (q1)
    kt = Transpose <perm = [0, 2, 3, 1]> (q1)
    scores = MatMul (q, kt)
    masked = Add (scores, mask)
    p = Softmax (masked)
    c = MatMul (p, q)
    r = Transpose <perm = [0, 2, 1, 3]> (c)
    o = Concat <axis = 0> (n, t, eight)
    y = Reshape (r, o)
"""


def test_the_size_argument_reaches_through_attention_with_a_foreign_mask() -> None:
    signature = "(float[N,T,8] x, float[B,1,1,S] mask) => (float[N,T,8] y)"
    model = model_of(DIMS + ATTENTION, signature)
    feeds = {"x": normal(3, 5, 8), "mask": normal(3, 1, 1, 5)}
    broadcast = {"x": normal(3, 5, 8), "mask": normal(1, 1, 1, 5)}
    after = improved(ConstantReshape(), model, feeds, broadcast)
    assert not {"Shape", "Gather", "Concat"} & set(ops(after))


@pytest.mark.parametrize(
    ("body", "signature"),
    [
        # The dimensions change places.
        (
            DIMS + "k = Concat <axis = 0> (t, n, eight) y = Reshape (x, k)",
            "(float[N,T,8] x) => (float[T,N,8] y)",
        ),
        # They belong to another tensor with its own sizes.
        (
            DIMS + "k = Concat <axis = 0> (n, t, two, four) y = Reshape (z, k)",
            "(float[N,T,8] x, float[A,B,8] z) => (float[N,T,2,4] y)",
        ),
        # Two entries of unknown origin.
        (
            """
            s = Shape (x) g0 = Gather (s, i0) n = Unsqueeze (g0, v0) m = Div (n, two)
            k = Concat <axis = 0> (m, n, two) y = Reshape (x, k)
            """,
            "(float[N,T] x) => (float[A,B,2] y)",
        ),
        # An inferred entry beside a copied one, which may be empty.
        (
            DIMS + "p = Mul (t, two) k = Concat <axis = 0> (n, p, four) y = Reshape (x, k)",
            "(float[N,T,8] x) => (float[N,U,4] y)",
        ),
        # A target that nothing is known about.
        ("y = Reshape (x, k)", "(float[N,T] x, int64[K] k) => (float y)"),
    ],
)
def test_anything_else_is_left_alone(body: str, signature: str) -> None:
    assert untouched(ConstantReshape(), model_of(body, signature))


def test_works_inside_a_branch() -> None:
    body = f"""
        y = If (c) <
            then_branch = a () => (float[N,T,2,4] o) {{
                {DIMS}
                k = Concat <axis = 0> (n, t, two, four)
                o = Reshape (x, k)
            }},
            else_branch = b () => (float[N,T,2,4] u) {{
                f = Concat <axis = 0> (v0, v0, two, four)
                u = Reshape (x, f)
            }}
        >
    """
    model = model_of(body, "(bool c, float[N,T,8] x) => (float[N,T,2,4] y)")
    for condition in (True, False):
        feeds = {"c": np.array(condition), "x": normal(3, 5, 8)}
        assert ops(improved(ConstantReshape(), model, feeds)) == {"If": 1, "Reshape": 2}
