"""Batch normalization disappears into the layer before it, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from converters.passes.fuse_batch_norm import FuseBatchNorm
from converters.passes.infer_shapes import InferShapes
from tests.passes.models import Array, graph, improved, normal, ops, untouched, weight_bytes

NORM = "BatchNormalization <epsilon = 0.001> (c, s, b, m, v)"


def statistics(channels: int) -> dict[str, Array]:
    random = np.random.default_rng(7)
    arrays = {name: random.standard_normal(channels).astype(np.float32) for name in "sbm"}
    return arrays | {"v": random.uniform(0.2, 3, channels).astype(np.float32)}


CONVOLUTIONS = {
    "plain": ("c = Conv (x, w)", (6, 4, 3, 3), 6),
    "biased": ("c = Conv (x, w, k)", (6, 4, 3, 3), 6),
    "grouped": ("c = Conv <group = 2, pads = [1,1,1,1]> (x, w)", (6, 2, 3, 3), 6),
    "added": ("a = Conv (x, w) c = Add (a, k4)", (6, 4, 3, 3), 6),
    "added first": ("a = Conv (x, w, k) c = Add (k4, a)", (6, 4, 3, 3), 6),
    "transposed": ("c = ConvTranspose <strides = [2,2]> (x, w, k)", (4, 6, 2, 2), 6),
    "transposed grouped": ("c = ConvTranspose <group = 2> (x, w)", (4, 3, 2, 2), 6),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions_absorb_it(case: str) -> None:
    layer, shape, channels = CONVOLUTIONS[case]
    before = graph(
        "(float[N,4,7,7] x) => (float[N,C,H,W] y)",
        f"{layer} y = {NORM}",
        w=normal(*shape),
        k=normal(channels, seed=3),
        k4=normal(1, channels, 1, 1, seed=4),
        **statistics(channels),
    )
    after = improved(FuseBatchNorm(), before)
    assert list(ops(after)) in (["Conv"], ["ConvTranspose"])
    assert weight_bytes(after) < weight_bytes(before)


@pytest.mark.parametrize(
    ("layer", "left"),
    [
        ("c = Gemm <alpha = 0.5, beta = 2.0> (x, w, k)", {"Gemm": 1}),
        ("c = Gemm <transB = 1> (x, t)", {"Gemm": 1}),
        ("c = MatMul (x, w)", {"MatMul": 1, "Add": 1}),
        ("a = MatMul (x, w) c = Add (k, a)", {"MatMul": 1, "Add": 1}),
    ],
)
def test_dense_layers_absorb_it(layer: str, left: dict[str, int]) -> None:
    model = graph(
        "(float[N,5] x) => (float[N,6] y)",
        f"{layer} y = {NORM}",
        w=normal(5, 6),
        t=normal(6, 5),
        k=normal(6),
        **statistics(6),
    )
    InferShapes()(model)
    assert ops(improved(FuseBatchNorm(), model)) == left


def test_a_chain_inside_a_branch_with_a_shared_weight() -> None:
    model = graph(
        "(bool q, float[N,4,7,7] x) => (float[N,4,7,7] y)",
        """
        y = If (q) <
            then_branch = t () => (float[N,4,7,7] o) {
                a = Conv <pads = [1,1,1,1]> (x, w)
                d = BatchNormalization (a, s, b, m, v)
                e = Relu (d)
                c = Conv <pads = [1,1,1,1]> (e, w)
                o = BatchNormalization (c, s, b, m, v)
            },
            else_branch = e () => (float[N,4,7,7] p) { p = Conv <pads = [1,1,1,1]> (x, w) }
        >
        """,
        w=normal(4, 4, 3, 3),
        **statistics(4),
    )
    for condition in (True, False):
        feeds = {"q": np.array(condition), "x": normal(2, 4, 7, 7)}
        after = improved(FuseBatchNorm(), model, feeds)
        assert ops(after) == {"If": 1, "Conv": 3, "Relu": 1}


@pytest.mark.parametrize(
    "body",
    [
        f"c = Conv (x, w) r = Relu (c) y0 = {NORM} y = Add (y0, r)",
        "c = Conv (x, w) r = Relu (c) y = BatchNormalization (r, s, b, m, v)",
        "c = Conv (x, w) y, m2, v2 = BatchNormalization <training_mode = 1> (c, s, b, m, v)",
        f"c = Conv (x, w, z) y = {NORM}",
        f"a = Conv (x, w) c = Add (a, plane) y = {NORM}",
        f"a = Conv (x, w) c = Add (a, a) y = {NORM}",
    ],
)
def test_left_alone(body: str) -> None:
    model = graph(
        "(float[1,4,7,7] x, float[6] z) => (float[1,6,5,5] y)",
        body,
        w=normal(6, 4, 3, 3),
        plane=normal(1, 6, 5, 5),
        **statistics(6),
    )
    assert untouched(FuseBatchNorm(), model)


def test_a_layer_whose_output_is_also_a_graph_output_is_left_alone() -> None:
    model = graph(
        "(float[1,4,7,7] x) => (float[1,6,5,5] y, float[1,6,5,5] c)",
        f"c = Conv (x, w) y = {NORM}",
        w=normal(6, 4, 3, 3),
        **statistics(6),
    )
    assert untouched(FuseBatchNorm(), model)
