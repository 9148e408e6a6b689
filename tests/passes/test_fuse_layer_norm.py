"""Written-out layer normalization becomes one node that computes the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converters.passes.fuse_layer_norm import FuseLayerNorm
from converters.passes.infer_shapes import InferShapes
from tests.passes.models import graph, improved, normal, ops, untouched

DIV = """
    m = ReduceMean <axes = [-1]> (x)
    d = Sub (x, m)
    q = Pow (d, two)
    v = ReduceMean <axes = [-1]> (q)
    e = Add (v, eps)
    r = Sqrt (e)
    n = Div (d, r)
    """
SCALED = "k = Mul (n, scale) y = Add (k, bias)"
FORMS = {
    "pytorch": (DIV + SCALED, 1),
    "swapped operands": (DIV + "k = Mul (scale, n) y = Add (bias, k)", 1),
    "second difference": (DIV.replace("q = Pow (d", "d2 = Sub (x, m) q = Pow (d2") + SCALED, 1),
    "squared by Mul": (DIV.replace("Pow (d, two)", "Mul (d, d)") + SCALED, 1),
    "power one half": (DIV.replace("Sqrt (e)", "Pow (e, half)") + SCALED, 1),
    "reciprocal": (DIV.replace("n = Div (d, r)", "i = Reciprocal (r) n = Mul (i, d)") + SCALED, 1),
    "positive axis": (DIV.replace("[-1]", "[2]") + SCALED, 1),
    "two axes": (DIV.replace("[-1]", "[-2, -1]") + "k = Mul (n, plane) y = Relu (k)", 1),
    "no scale": (DIV + "y = Add (n, bias)", 1),
    "no bias": (DIV + "y = Mul (n, row)", 1),
    "neither": (DIV + "y = Relu (n)", 1),
    "scalar scale": (DIV + "k = Mul (n, two) y = Add (k, bias)", 1),
    "dynamic scale": (DIV + "k = Mul (n, x) y = Add (k, bias)", 1),
    "scale over another axis": (DIV + "k = Mul (n, column) y = Add (k, bias)", 1),
}
REJECTED = {
    "other axis": DIV.replace("[-1]", "[1]") + SCALED,
    "different axes": DIV.replace("v = ReduceMean <axes = [-1]>", "v = ReduceMean <axes = [1]>")
    + SCALED,
    "not centred": DIV.replace("n = Div (d, r)", "n = Div (x, r)") + SCALED,
    "cubed": DIV.replace("two", "three") + SCALED,
    "uncentred square": DIV.replace("q = Pow (d", "q = Pow (x") + SCALED,
    "no epsilon": DIV.replace("e = Add (v, eps)", "e = Add (v, v)") + SCALED,
}


def model_of(body: str, opset: int = 17, signature: str = "float[N,5,8] x") -> ir.Model:
    model = graph(
        f"({signature}) => (float[N,5,8] y)",
        body,
        opset=opset,
        scale=normal(8, seed=1),
        bias=normal(8, seed=2),
        row=normal(1, 1, 8, seed=3),
        plane=normal(5, 8, seed=4),
        column=normal(5, 1, seed=5),
        two=np.float32(2),
        three=np.float32(3),
        half=np.float32(0.5),
        eps=np.float32(1e-5),
    )
    InferShapes()(model)
    return model


@pytest.mark.parametrize("form", FORMS)
def test_fused(form: str) -> None:
    body, count = FORMS[form]
    before = model_of(body)
    after = improved(FuseLayerNorm(), before)
    assert ops(after)["LayerNormalization"] == count
    assert not {"ReduceMean", "Sub", "Sqrt", "Div"} & set(ops(after))
    assert len(after.graph) <= len(before.graph) - 6


@pytest.mark.parametrize("form", REJECTED)
def test_anything_else_is_left_alone(form: str) -> None:
    assert untouched(FuseLayerNorm(), model_of(REJECTED[form]))


def test_left_alone_below_the_opset_that_has_the_operator() -> None:
    assert untouched(FuseLayerNorm(), model_of(DIV + SCALED, opset=16))


def test_intermediate_values_used_elsewhere_stay() -> None:
    after = improved(
        FuseLayerNorm(), model_of(DIV + SCALED.replace("y =", "w =") + "y = Add (w, d)")
    )
    assert ops(after) == {"LayerNormalization": 1, "ReduceMean": 1, "Sub": 1, "Add": 1}


def test_fused_inside_a_branch() -> None:
    branch = (DIV + SCALED).replace("y =", "o =")
    model = model_of(
        f"""
        y = If (c) <
            then_branch = t () => (float[N,5,8] o) {{ {branch} }},
            else_branch = e () => (float[N,5,8] p) {{ p = Relu (x) }}
        >
        """,
        signature="bool c, float[N,5,8] x",
    )
    for condition in (True, False):
        feeds = {"c": np.array(condition), "x": normal(2, 5, 8)}
        after = improved(FuseLayerNorm(), model, feeds)
        assert ops(after) == {"If": 1, "LayerNormalization": 1, "Relu": 1}
