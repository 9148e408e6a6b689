"""One-hot products become look-ups, for indices in range and out of it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converters.passes.infer_shapes import InferShapes
from converters.passes.one_hot_to_gather import OneHotToGather
from tests.passes.models import Array, graph, improved, normal, ops, untouched

DEPTH = 6
EVERYTHING = np.arange(-2 * DEPTH, 2 * DEPTH)
CONSTANTS: dict[str, Array] = {
    "w": normal(DEPTH, 4),
    "depth": np.array(DEPTH),
    "depth1": np.array([DEPTH], np.float32),
    "onoff": np.array([0, 1], np.float32),
    "offon": np.array([1, 0], np.float32),
    "classes": np.arange(DEPTH).reshape(1, 1, DEPTH),
    "flat": np.arange(DEPTH),
    "shuffled": np.arange(DEPTH)[::-1].copy(),
    "last": np.array([-1]),
}


def model_of(body: str, inputs: str = "int64[N,T] x", opset: int = 17, **more: Array) -> ir.Model:
    model = graph(f"({inputs}) => (float[N,T,4] y)", body, opset=opset, **{**CONSTANTS, **more})
    InferShapes()(model)
    return model


COMPARED = "u = Unsqueeze (x, last) e = Equal (u, classes) h = Cast <to = 1> (e) y = MatMul (h, w)"
FORMS = {
    "operator": "h = OneHot (x, depth, onoff) y = MatMul (h, w)",
    "operator, last axis by number": "h = OneHot <axis = 2> (x, depth1, onoff) y = MatMul (h, w)",
    "comparison": COMPARED,
    "comparison, other way round": COMPARED.replace("(u, classes)", "(flat, u)"),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_rows_for_every_index(form: str) -> None:
    feeds = {"x": np.tile(EVERYTHING, (2, 1))}
    after = improved(OneHotToGather(), model_of(FORMS[form]), feeds, rtol=0, atol=0)
    assert not {"OneHot", "Equal", "MatMul"} & set(ops(after))
    assert ops(after)["Gather"] == 1


def test_narrow_indices() -> None:
    constants = {"classes": np.arange(DEPTH, dtype=np.int32).reshape(1, 1, DEPTH)}
    feeds = {"x": np.tile(EVERYTHING, (2, 1)).astype(np.int32)}
    model = model_of(COMPARED, "int32[N,T] x", **constants)
    assert ops(improved(OneHotToGather(), model, feeds, rtol=0, atol=0))["Gather"] == 1


def test_works_inside_a_branch() -> None:
    model = graph(
        "(bool c, int64[N,T] x) => (float[N,T,4] y)",
        """
        y = If (c) <
            then_branch = t () => (float[N,T,4] a) {
                h = OneHot (x, depth, onoff)
                a = MatMul (h, w)
            },
            else_branch = e () => (float[N,T,4] b) {
                g = OneHot (x, depth, offon)
                b = MatMul (g, w)
            }
        >
        """,
        **CONSTANTS,
    )
    for condition in (True, False):
        feeds = {"c": np.array(condition), "x": np.tile(EVERYTHING, (2, 1))}
        found = ops(improved(OneHotToGather(), model, feeds))
        assert (found["Gather"], found["OneHot"]) == (1, 1)


@pytest.mark.parametrize(
    "body",
    [
        FORMS["operator"].replace("onoff", "offon"),
        "h = OneHot <axis = 0> (x, depth, onoff) y = MatMul (h, v)",
        "h = OneHot (x, depth, onoff) p = MatMul (h, w) q = ReduceSum (h) y = Add (p, q)",
        COMPARED.replace("classes", "shuffled"),
        COMPARED.replace("(u, classes)", "(x, flat)").replace("(h, w)", "(h, v)"),
        FORMS["operator"].replace("w)", "infinite)"),
    ],
)
def test_anything_else_is_left_alone(body: str) -> None:
    more = {"v": normal(5, 4), "infinite": np.full((DEPTH, 4), np.inf, np.float32)}
    model = graph("(int64[N,T] x) => (float y)", body, **CONSTANTS, **more)
    assert untouched(OneHotToGather(), model)


def test_floating_point_indices_and_old_opsets_are_left_alone() -> None:
    constants = {"classes": np.arange(DEPTH, dtype=np.float32).reshape(1, 1, DEPTH)}
    assert untouched(OneHotToGather(), model_of(COMPARED, "float[N,T] x", **constants))
    assert untouched(OneHotToGather(), model_of(FORMS["operator"], opset=11))
