"""Smoothing changes nothing in float and much in int8."""

from __future__ import annotations

import numpy as np
import pytest

from converters.calibration.statistics import Statistics, TensorStatistics
from converters.passes.dynamic_int8 import DynamicInt8, DynamicInt8Options
from converters.passes.smooth_quant import SmoothQuant, smoothing_scale
from tests.passes.models import Array, graph, normal, ops, run, untouched
from tests.passes.networks import (
    HIDDEN,
    calibrated,
    cosine,
    encoder,
    samples,
    transformed,
    with_statistics,
)

SHAPE = (1, 7, HIDDEN)


def test_outliers_cost_less_after_smoothing_and_float_is_unchanged() -> None:
    model, statistics = calibrated(encoder, SHAPE)
    smooth = transformed(with_statistics(SmoothQuant, statistics), model)
    held_out = samples(SHAPE, 6, seed=11)
    assert cosine(model, smooth, held_out) > 0.999999
    plain = cosine(model, transformed(DynamicInt8(), model), held_out)
    smoothed = cosine(model, transformed(DynamicInt8(), smooth), held_out)
    assert 1 - smoothed < 0.6 * (1 - plain)


def test_scales_are_folded_where_nothing_else_depends_on_them() -> None:
    model, statistics = calibrated(encoder, SHAPE)
    smooth = transformed(with_statistics(SmoothQuant, statistics), model)
    # The first norm feeds Q, K and V alone, and attention's mix becomes the values' layer; the
    # second norm feeds a residual too, and GELU is not linear: these need a Mul.
    assert ops(smooth)["Mul"] == 2
    assert ops(smooth)["MatMul"] == ops(model)["MatMul"]


CHAINS = {
    "norm": "n = LayerNormalization (x, g, s) y = MatMul (n, v)",
    "norm without bias": "n = LayerNormalization (x, g) y = MatMul (n, v)",
    "norm, two layers": "n = LayerNormalization (x, g, s)"
    "p = MatMul (n, v) q = MatMul (n, w) y = Add (p, q)",
    "dense": "h = MatMul (x, w) y = MatMul (h, v)",
    "dense with bias": "h0 = MatMul (x, w) h = Add (b, h0) y = MatMul (h, v)",
    "dense with relu": "h0 = Gemm (x, w, b) h = Relu (h0) y = Gemm <transB = 1> (h, v)",
    "scaled dense": "h0 = Gemm <alpha = 0.5, beta = 2.0> (x, w, b) h = Relu (h0) y = MatMul (h, v)",
}
KEPT = {
    "used beside": "n = LayerNormalization (x, g, s) m = MatMul (n, v) y = Add (m, n)",
    "gelu": "h = com.microsoft.Gelu (x) y = MatMul (h, v)",
    "relu used beside": "h0 = MatMul (x, w) h = Relu (h0) m = MatMul (h, v) y = Add (m, h0)",
}


def chain(body: str) -> tuple[object, Statistics]:
    arrays: dict[str, Array] = {
        "w": normal(16, 16),
        "v": normal(16, 16, seed=1),
        "b": normal(16, seed=2),
        "g": normal(16, seed=3),
        "s": normal(16, seed=4),
    }
    model = graph("(float[3,16] x) => (float[3,16] y)", body, **arrays)
    absmax = np.geomspace(0.01, 100, 16).astype(np.float32)
    seen = {
        name: TensorStatistics(-100, 100, channel_absmax=absmax) for name in ("x", "n", "h", "h0")
    }
    return model, Statistics({name: seen[name] for name in ("n", "h")})


@pytest.mark.parametrize("case", [*CHAINS, *KEPT])
def test_folding_is_exact(case: str) -> None:
    model, statistics = chain((CHAINS | KEPT)[case])
    after = transformed(with_statistics(SmoothQuant, statistics), model)
    assert ops(after)["Mul"] == (case in KEPT)
    assert set(after.graph.initializers) != set(model.graph.initializers)
    feeds = {"x": normal(3, 16, seed=9)}
    expected = run(model, feeds)["y"]
    np.testing.assert_allclose(run(after, feeds)["y"], expected, rtol=1e-4, atol=1e-3)


def test_excluded_layers_read_the_activation_as_it_is() -> None:
    body = "h = Neg (x) p = MatMul (h, v) q = MatMul (h, w) y = Add (p, q)"
    model, statistics = chain(body)
    for node, name in zip(model.graph, ("n", "first", "second", "sum"), strict=True):
        node.name = name
    after = transformed(with_statistics(SmoothQuant, statistics, {"exclude": ("second",)}), model)
    read = {node.name: node.inputs[0].name for node in after.graph if node.op_type == "MatMul"}
    assert read == {"first": "h_smooth", "second": "h"}


def test_shared_weights_and_unseen_activations_stay() -> None:
    shared, statistics = chain("h = Neg (x) a = MatMul (h, v) y = MatMul (a, v)")
    assert untouched(with_statistics(SmoothQuant, statistics), shared)
    unseen, _ = chain("y = MatMul (x, v)")
    assert untouched(with_statistics(SmoothQuant, Statistics()), unseen)


def test_scale_balances_what_it_moves_and_survives_silent_channels() -> None:
    activations = np.array([8, 2, 0.5, 0], np.float32)
    weights = np.array([1, 4, 1, 0], np.float32)
    scale = smoothing_scale(activations, weights, 0.5)
    assert scale is not None
    assert np.isfinite(scale).all()
    assert np.exp(np.log(scale).mean()) == pytest.approx(1, rel=1e-5)
    moved = (activations / scale)[:3] / (weights * scale)[:3]
    np.testing.assert_allclose(moved, moved[0], rtol=1e-5)
    assert smoothing_scale(np.zeros(4, np.float32), weights, 0.5) is None


def test_a_value_at_another_scale_has_another_name() -> None:
    model, statistics = calibrated(encoder, SHAPE)
    smooth = transformed(with_statistics(SmoothQuant, statistics), model)
    inputs = {node.inputs[0].name for node in smooth.graph if node.op_type == "LayerNormalization"}
    read = {
        node.inputs[0].name
        for node in smooth.graph
        if node.op_type == "MatMul" and node.inputs[1].is_initializer()
    }
    assert read == {"p_smooth", "context_smooth", "n_smooth", "f_smooth"}
    assert inputs == {"x", "a", "r"}


def test_smoothed_layers_still_fit_the_int8_pass() -> None:
    model, statistics = chain(CHAINS["dense with relu"])
    smooth = transformed(with_statistics(SmoothQuant, statistics), model)
    after = transformed(DynamicInt8(DynamicInt8Options(min_weight_elements=1)), smooth)
    assert ops(after) == {"DynamicQuantizeMatMul": 2, "Relu": 1}
