"""Weights stored small: a fraction of the bytes, the same float kernels once loaded."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converters.passes.base import Context, each_graph
from converters.passes.fold_constants import FoldConstants
from converters.passes.store_small import StoreSmall, StoreSmallOptions
from tests.passes.models import (
    Array,
    as_loaded,
    feeds_for,
    graph,
    improved,
    normal,
    ops,
    run,
    untouched,
    weight_bytes,
)

# What int8 with a scale per channel costs: half a step of 1 / 127 per weight, averaged out.
CLOSE = 0.9999


def uneven(*shape: int, axis: int) -> Array:
    """Weights whose channels along ``axis`` differ in scale by a factor of a thousand."""
    factors = np.geomspace(0.01, 10, shape[axis]).astype(np.float32)
    return normal(*shape) * factors.reshape([-1 if i == axis else 1 for i in range(len(shape))])


MATMUL = "(float[3,64] x) => (float[3,96] y)"
LAYERS = {
    "Conv": ("float[1,16,9,9] x", "y = Conv (x, w)", uneven(32, 16, 3, 3, axis=0)),
    "ConvTranspose": (
        "float[1,16,9,9] x",
        "y = ConvTranspose (x, w)",
        uneven(16, 32, 3, 3, axis=1),
    ),
    "MatMul": ("float[3,64] x", "y = MatMul (x, w)", uneven(64, 96, axis=1)),
    "MatMul on the left": ("float[64,3] x", "y = MatMul (w, x)", uneven(96, 64, axis=0)),
    "batched MatMul": ("float[2,3,64] x", "y = MatMul (x, w)", uneven(2, 64, 96, axis=2)),
    "Gemm": ("float[3,64] x", "y = Gemm (x, w)", uneven(64, 96, axis=1)),
    "transposed Gemm": ("float[3,64] x", "y = Gemm <transB = 1> (x, w)", uneven(96, 64, axis=0)),
    "Gather": ("int64[3] x", "y = Gather (w, x)", uneven(96, 64, axis=0)),
    "Gather of columns": ("int64[3] x", "y = Gather <axis = 1> (w, x)", uneven(64, 96, axis=1)),
    "LSTM": (
        "float[5,1,48] x",
        "y, h, c = LSTM <hidden_size = 24> (x, w, r)",
        uneven(1, 96, 48, axis=1) * np.float32(0.1),
    ),
    "GRU": (
        "float[5,1,48] x",
        "y, h = GRU <hidden_size = 32> (x, w, s, , , )",
        uneven(1, 96, 48, axis=1) * np.float32(0.1),
    ),
}


def layer(name: str) -> ir.Model:
    inputs, body, weight = LAYERS[name]
    return graph(
        f"({inputs}) => (float y)",
        body,
        w=weight,
        r=normal(1, 96, 24, scale=0.3),
        s=normal(1, 96, 32, scale=0.3),
    )


def agreement(first: Array, second: Array, axis: int = -1) -> float:
    """Smallest cosine over rows."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    norms = np.linalg.norm(a, axis=axis) * np.linalg.norm(b, axis=axis)
    return float(((a * b).sum(axis) / np.maximum(norms, 1e-12)).min())


@pytest.mark.parametrize("name", LAYERS)
def test_smaller_by_more_than_three_and_every_channel_close(name: str) -> None:
    before = layer(name)
    before.graph.outputs[0].shape = None
    after = ir.from_proto(ir.to_proto(before))
    assert StoreSmall(StoreSmallOptions(min_elements=1024))(after).modified
    used = {v.name for v in before.graph.initializers.values() if v.uses()}
    size = sum(
        v.const_value.nbytes
        for v in before.graph.initializers.values()
        if v.name in used and v.const_value is not None
    )
    assert size > 3 * weight_bytes(after)
    feeds = feeds_for(before)
    expected, actual = run(before, feeds)["y"], run(after, feeds)["y"]
    assert agreement(expected.reshape(1, -1), actual.reshape(1, -1)) > CLOSE


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("storage", ["int8", "float16"])
def test_the_engine_restores_the_weights_at_load(name: str, storage: str) -> None:
    model = layer(name)
    model.graph.outputs[0].shape = None
    plain = ops(as_loaded(model))
    StoreSmall(StoreSmallOptions(storage=storage, min_elements=1024))(model)
    assert ops(model)["Cast"] >= 1
    assert ops(as_loaded(model)) == plain


def test_float16_is_nearly_lossless() -> None:
    before = graph(MATMUL, "y = MatMul (x, w)", w=normal(64, 96))
    options = StoreSmallOptions(storage="float16")
    after = improved(StoreSmall(options), before, rtol=1e-2, atol=2e-2)
    assert weight_bytes(before) == 2 * weight_bytes(after)


def test_float16_leaves_weights_that_would_overflow() -> None:
    model = graph(
        "(float[3,64] x) => (float[3,96] y)",
        "y = MatMul (x, w)",
        w=normal(64, 96) * np.float32(1e5),
    )
    context = Context()
    assert untouched(StoreSmall(StoreSmallOptions(storage="float16"), context), model)
    assert context.unquantized[0].reason == "weights exceed float16"


BRANCHES = """
    y = If (c) <
        then_branch = t () => (float[3,96] a) { a = MatMul (x, w) },
        else_branch = e () => (float[3,96] b) { h = MatMul (x, w) b = Relu (h) }
    >
"""


def test_a_weight_that_branches_capture_is_restored_once_and_outside() -> None:
    model = graph("(bool c, float[3,64] x) => (float[3,96] y)", BRANCHES, w=normal(64, 96))
    for condition in (True, False):
        feeds = {"c": np.array(condition), "x": normal(3, 64)}
        after = improved(StoreSmall(), model, feeds, rtol=0.05, atol=0.2)
        assert [node.op_type for node in after.graph] == ["Cast", "Mul", "If"]
        assert "Cast" not in ops(as_loaded(after))


def test_a_weight_that_a_loop_body_owns_is_restored_at_load_and_not_per_iteration() -> None:
    model = graph(
        "(int64 n, float[3,64] x) => (float[3,64] y)",
        """
        y = Loop (n, , x) <body = b (int64 i, bool k, float[3,64] s) => (bool k2, float[3,64] s2) {
            k2 = Identity (k)
            p = MatMul (s, w)
            s2 = Tanh (p)
        }>
        """,
        w=normal(64, 64, scale=0.1),
    )
    body = next(each_graph(model.graph.node(0).attributes["body"].as_graph()))
    weight = model.graph.initializers.pop("w")
    body.register_initializer(weight)
    feeds = {"n": np.array(4), "x": normal(3, 64)}
    after = improved(StoreSmall(), model, feeds, rtol=0.05, atol=0.05)
    assert weight_bytes(model) > 3 * weight_bytes(after)
    assert "Cast" not in ops(as_loaded(after))


def test_folding_afterwards_does_not_undo_it() -> None:
    model = graph(MATMUL, "y = MatMul (x, w)", w=normal(64, 96))
    StoreSmall()(model)
    stored = weight_bytes(model)
    FoldConstants()(model)
    assert weight_bytes(model) == stored


def test_a_weight_that_is_also_used_otherwise_or_is_small_or_excluded_stays() -> None:
    body, weight = "y = MatMul (x, w)", normal(64, 96)
    other = "p = MatMul (x, w) q = ReduceSum <keepdims = 0> (w) y = Add (p, q)"
    assert untouched(StoreSmall(), graph(MATMUL, other, w=weight))
    small = StoreSmallOptions(min_elements=weight.size + 1)
    assert untouched(StoreSmall(small), graph(MATMUL, body, w=weight))
    named = graph(MATMUL, body, w=weight)
    named.graph.node(0).name = "head"
    assert untouched(StoreSmall(StoreSmallOptions(exclude=("head",))), named)


def test_a_weight_that_callers_may_override_stays() -> None:
    model = graph(
        "(float[3,64] x, float[64,96] w) => (float[3,96] y)", "y = MatMul (x, w)", w=normal(64, 96)
    )
    assert untouched(StoreSmall(), model)
