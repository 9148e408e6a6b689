"""Written-out GELU becomes one node that computes the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converters.passes.fuse_gelu import FuseGelu, FuseGeluOptions
from tests.passes.models import graph, improved, normal, ops, untouched

ERF = {
    "divided": "a = Div (x, r2) b = Erf (a) c = Add (b, one) d = Mul (x, c) y = Mul (d, half)",
    "half first": "a = Div (x, r2) b = Erf (a) c = Add (one, b) h = Mul (half, x) y = Mul (h, c)",
    "half inside": "a = Mul (x, ir2) b = Erf (a) c = Add (b, one) h = Mul (c, half) y = Mul (h, x)",
    "over two": "a = Mul (x, ir2) b = Erf (a) c = Add (b, one) d = Mul (x, c) y = Div (d, two)",
}
CUBE = {
    "power": "p = Pow (x, three) q = Mul (p, k) s = Add (x, q) u = Mul (s, rp)",
    "products": "p = Mul (x, k) q = Mul (x, p) r = Mul (x, q) s = Add (r, x) u = Mul (rp, s)",
    "square": "p = Mul (x, x) q = Mul (p, k) r = Add (q, one) s = Mul (x, r) u = Mul (s, rp)",
    "factored": "p = Pow (x, two) q = Mul (k, p) r = Add (one, q) s = Mul (x, rp) u = Mul (s, r)",
}
TANH = "t = Tanh (u) v = Add (t, one) w = Mul (v, half) y = Mul (x, w)"
ALL = {**ERF, **{f"tanh, {name}": cube + " " + TANH for name, cube in CUBE.items()}}


def model_of(body: str, opset: int = 17, signature: str = "float[N,4] x") -> ir.Model:
    return graph(
        f"({signature}) => (float[N,4] y)",
        body,
        opset=opset,
        half=np.float32(0.5),
        one=np.float32(1),
        two=np.float32(2),
        three=np.float32(3),
        r2=np.float32(np.sqrt(2)),
        ir2=np.float32(np.sqrt(0.5)),
        k=np.float32(0.044715),
        rp=np.float32(np.sqrt(2 / np.pi)),
    )


@pytest.mark.parametrize("form", ALL)
@pytest.mark.parametrize("domain", ["contrib", "standard"])
def test_fused(form: str, domain: str) -> None:
    options = FuseGeluOptions(domain=domain)
    after = improved(FuseGelu(options), model_of(ALL[form], opset=20), rtol=1e-3, atol=1e-5)
    assert list(ops(after)) == [
        "FastGelu" if (domain, "tanh" in form) == ("contrib", True) else "Gelu"
    ]


def test_the_input_may_itself_be_a_product_and_the_output_scaled() -> None:
    body = ERF["divided"].replace("y =", "g =").replace("x", "h")
    after = improved(FuseGelu(), model_of(f"h = Mul (x, three) {body} y = Mul (g, two)"))
    assert ops(after) == {"Mul": 2, "Gelu": 1}


def test_fused_inside_a_branch() -> None:
    branch = ERF["divided"].replace("y =", "o =")
    model = model_of(
        f"""
        y = If (q) <
            then_branch = t () => (float[N,4] o) {{ {branch} }},
            else_branch = e () => (float[N,4] p) {{ p = Relu (x) }}
        >
        """,
        signature="bool q, float[N,4] x",
    )
    for condition in (True, False):
        feeds = {"q": np.array(condition), "x": normal(2, 4)}
        assert ops(improved(FuseGelu(), model, feeds)) == {"If": 1, "Gelu": 1, "Relu": 1}


@pytest.mark.parametrize(
    "body",
    [
        ERF["divided"].replace("r2", "three"),
        ERF["divided"].replace("half", "two"),
        ERF["divided"].replace("Add (b, one)", "Add (b, two)"),
        ERF["divided"].replace("Erf", "Tanh"),
        CUBE["power"].replace("three", "two") + " " + TANH,
        CUBE["power"].replace("k)", "half)") + " " + TANH,
        "z = Relu (x) " + ERF["divided"].replace("Div (x", "Div (z"),
    ],
)
def test_anything_else_is_left_alone(body: str) -> None:
    assert untouched(FuseGelu(), model_of(body))


def test_the_standard_operator_needs_its_opset() -> None:
    assert untouched(FuseGelu(FuseGeluOptions(domain="standard")), model_of(ERF["divided"]))
