"""Attention written out becomes one node, with the mask that belongs to it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converters.passes.fuse_attention import FuseAttention
from converters.passes.merge_projections import MergeProjections
from tests.passes.models import Array, feeds_for, graph, improved, normal, ops, run, untouched
from tests.passes.networks import encoder, inferred

# What an exporter writes for the shape of a mask: no dimension ever is -1.
GUARDED = """
    b = Shape <end = 1> (keep) s = Shape <start = 1> (x) t = Slice (s, zeros, ones)
    target = Concat <axis = 0> (b, ones, t, t) flat = Reshape (target, minus)
    absent = Equal (flat, minuses) sizes = Where (absent, four, flat)
    k4d = Unsqueeze (keep, places) wide = Expand (k4d, sizes)
    kept = Cast <to = 1> (wide) m = Sub (one, kept) far = Cast <to = 9> (m)
    mask = Where (far, lowest, m)
"""
GUARDS = {
    "zeros": np.zeros(1, np.int64),
    "ones": np.ones(1, np.int64),
    "minus": np.full(1, -1),
    "minuses": np.full(4, -1),
    "four": np.ones(4, np.int64),
    "places": np.array([1, 2]),
    "one": np.array(1, np.float32),
    "lowest": np.array(np.finfo(np.float32).min),
}
TWICE = "k5 = Transpose <perm = [0,2,1,3]> (k4) kt = Transpose <perm = [0,1,3,2]> (k5)"


def attention(
    given: str = "",
    *,
    mask: str = "",
    keys: str = "kt = Transpose <perm = [0,2,3,1]> (k4)",
    softmax: str = "Softmax <axis = -1>",
    outputs: str = "",
    merge: tuple[int, ...] = (0, 0, 8),
    values: int = 8,
    **arrays: Array,
) -> ir.Model:
    """Two heads; ``given`` are further inputs, ``mask`` computes a value of that name."""
    added = "masked = Add (scores, mask)" if mask or "mask" in given else ""
    body = f"""
        q = MatMul (x, wq) k = MatMul (x, wk) v = MatMul (x, wv)
        q4 = Reshape (q, split) qt = Transpose <perm = [0,2,1,3]> (q4)
        k4 = Reshape (k, split) {keys}
        v4 = Reshape (v, split_v) vt = Transpose <perm = [0,2,1,3]> (v4)
        scores = MatMul (qt, kt) {mask} {added}
        p = {softmax} ({"masked" if added else "scores"})
        mixed = MatMul (p, vt)
        back = Transpose <perm = [0,2,1,3]> (mixed) y = Reshape (back, merge)
    """
    weights = {name: normal(8, 8, seed=i, scale=0.5) for i, name in enumerate(("wq", "wk"))}
    return inferred(
        graph(
            f"(float[N,S,8] x{given}) => (float[N,S,{values}] y{outputs})",
            body,
            wv=normal(8, values, seed=3),
            split=np.array([0, 0, 2, 4]),
            split_v=np.array([0, -1, 2, values // 2]),
            merge=np.array(merge),
            **weights,
            **arrays,
        )
    )


def test_a_layer_of_an_encoder() -> None:
    after = improved(FuseAttention(), encoder())
    assert ops(after)["Attention"] == 1
    assert ops(after)["MatMul"] == 6
    assert ops(after)["Transpose"] == ops(after)["Softmax"] == ops(after)["Reshape"] == 0


@pytest.mark.parametrize(
    "model",
    [
        attention(),
        attention(keys=TWICE),
        attention(values=12, merge=(0, -1, 12)),
        attention(", float[N,1,1,S] mask"),
        attention(", float[1,2,S,S] mask"),
        attention(", float[S,S] mask"),
        attention(mask="mask = Mul (bias, bias)", bias=normal(1, 1, 1, 1)),
    ],
    ids=["bare", "keys in two steps", "wide values", "row", "per head", "square", "number"],
)
def test_forms_that_are_recognised(model: ir.Model) -> None:
    after = improved(FuseAttention(), model)
    assert ops(after)["Attention"] == 1
    assert ops(after)["MatMul"] == 3


def test_mask_that_an_exporter_expands() -> None:
    model = attention(", int64[N,S] keep", mask=GUARDED, **GUARDS)
    keep = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    after = improved(FuseAttention(), model, {"x": normal(2, 5, 8), "keep": keep})
    assert ops(after)["Attention"] == 1


def test_in_a_branch() -> None:
    branch = """
        q4 = Reshape (x, split) qt = Transpose <perm = [0,2,1,3]> (q4)
        kt = Transpose <perm = [0,2,3,1]> (q4)
        scores = MatMul (qt, kt) p = Softmax (scores) mixed = MatMul (p, qt)
        back = Transpose <perm = [0,2,1,3]> (mixed) a = Reshape (back, merge)
    """
    model = inferred(
        graph(
            "(bool flag, float[N,S,8] x) => (float[N,S,8] y)",
            "y = If (flag) <"
            f"then_branch = g1 () => (float[N,S,8] a) {{ {branch} }}, "
            "else_branch = g2 () => (float[N,S,8] b) { b = Neg (x) }>",
            split=np.array([0, 0, 2, 4]),
            merge=np.array([0, 0, 8]),
        )
    )
    feeds = feeds_for(model)
    states = [feeds | {"flag": np.array(state)} for state in (True, False)]
    after = improved(FuseAttention(), model, *states)
    assert ops(after)["Attention"] == 1


def test_layers_before_it_become_one() -> None:
    fused = improved(FuseAttention(), encoder())
    after = improved(MergeProjections(), inferred(fused))
    assert ops(after)["MatMul"] == 4
    assert ops(after)["Split"] == 1


@pytest.mark.parametrize(
    "model",
    [
        attention(softmax="Softmax <axis = 2>"),
        attention(", float[M,1,1,S] mask"),
        attention(", float[N,1,1,T] mask"),
        attention(", float[3,1,S] mask"),
        attention(outputs=", float[N,2,S,S] scores"),
        attention(outputs=", float[N,2,S,S] p"),
        attention(merge=(0, -1, 4), outputs=", float[N,2,S,4] mixed"),
        graph("(float[N,4] x) => (float[N,4] y)", "y = Softmax (x)"),
    ],
    ids=[
        "over queries", "mask of another batch", "mask of another length", "mask of three axes",
        "scores are an output", "probabilities are an output", "merged otherwise", "no attention",
    ],
)  # fmt: skip
def test_left_alone(model: ir.Model) -> None:
    assert untouched(FuseAttention(), model)


def test_the_opset_rises_only_for_something_to_fuse() -> None:
    after = improved(FuseAttention(), attention())
    assert after.opset_imports[""] == 23
    assert run(after, feeds_for(after))["y"].shape == (3, 3, 8)
