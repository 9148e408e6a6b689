"""Networks with the structure of real ones, and how quantization passes are tried on them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from converters.calibration.collect import collect
from converters.calibration.statistics import Statistics
from converters.dataset import Dataset
from converters.passes.base import Context, GraphPass
from converters.passes.infer_shapes import InferShapes
from tests.passes.models import Array, graph, normal, run, signature

HIDDEN, HEADS, WIDE = 64, 4, 192

ATTENTION = """
    p = LayerNormalization <epsilon = 0.00001> (x, g0, s0)
    q0 = MatMul (p, wq) q = Add (bq, q0)
    k0 = MatMul (p, wk) k = Add (bk, k0)
    v0 = MatMul (p, wv) v = Add (bv, v0)
    q4 = Reshape (q, split) qt = Transpose <perm = [0,2,1,3]> (q4)
    k4 = Reshape (k, split) kt = Transpose <perm = [0,2,3,1]> (k4)
    v4 = Reshape (v, split) vt = Transpose <perm = [0,2,1,3]> (v4)
    scores = MatMul (qt, kt) probabilities = Softmax <axis = -1> (scores)
    mixed = MatMul (probabilities, vt)
    back = Transpose <perm = [0,2,1,3]> (mixed) context = Reshape (back, merge)
    o0 = MatMul (context, wo) o = Add (o0, bo)
"""
FEED_FORWARD = """
    a = Sum (o, x) n = LayerNormalization <epsilon = 0.00001> (a, g1, s1)
    f0 = MatMul (n, w1) f1 = Add (f0, b1) f = com.microsoft.Gelu (f1)
    h0 = MatMul (f, w2) h = Add (h0, b2)
    r = Sum (h, n) y = LayerNormalization <epsilon = 0.00001> (r, g2, s2)
"""


def encoder() -> ir.Model:
    """One transformer layer with two outlier channels before attention, as real ones have."""
    scale = HIDDEN**-0.5
    arrays: dict[str, Array] = {
        **{f"w{n}": normal(HIDDEN, HIDDEN, seed=i, scale=scale) for i, n in enumerate("qkvo")},
        **{f"b{n}": normal(HIDDEN, seed=i + 9, scale=0.1) for i, n in enumerate("qkvo")},
        "w1": normal(HIDDEN, WIDE, seed=5, scale=scale),
        "w2": normal(WIDE, HIDDEN, seed=6, scale=WIDE**-0.5),
        "b1": normal(WIDE, seed=7, scale=0.1),
        "b2": normal(HIDDEN, seed=8, scale=0.1),
        **{name: np.ones(HIDDEN, np.float32) for name in ("g0", "g1", "g2")},
        **{name: np.zeros(HIDDEN, np.float32) for name in ("s0", "s1", "s2")},
        "split": np.array([0, 0, HEADS, HIDDEN // HEADS]),
        "merge": np.array([0, 0, HIDDEN]),
    }
    arrays["g0"][[3, 17]] = 20.0
    for name in ("wq", "wk", "wv"):
        arrays[name][[3, 17]] *= 0.05
    signature = f"(float[N,S,{HIDDEN}] x) => (float[N,S,{HIDDEN}] y)"
    return inferred(graph(signature, ATTENTION + FEED_FORWARD, **arrays))


CONVOLUTIONS = """
    c1 = Conv <pads = [1,1,1,1]> (x, w1, b1) r1 = Relu (c1)
    c2 = Conv <pads = [1,1,1,1]> (r1, w2, b2) r2 = Clip (c2, zero, six)
    c3 = Conv <pads = [1,1,1,1]> (r2, w3, b3)
    a = Add (c3, r1) r3 = Relu (a)
    p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (r3)
    d = Conv <pads = [1,1,1,1], group = 16> (p, wd, bd) s = Sigmoid (d) m = Mul (d, s)
    g = GlobalAveragePool (m) f = Flatten (g)
    y = Gemm <transB = 1> (f, wf, bf)
"""


def convolutional() -> ir.Model:
    """A residual network with clamps, a depthwise convolution, SiLU, pooling and a classifier."""
    arrays: dict[str, Array] = {
        "w1": normal(16, 3, 3, 3, seed=1, scale=0.3),
        **{f"w{i}": normal(16, 16, 3, 3, seed=i, scale=0.1) for i in (2, 3)},
        "wd": normal(16, 1, 3, 3, seed=4, scale=0.4),
        "wf": normal(10, 16, seed=5, scale=0.5),
        **{f"b{n}": normal(16, seed=6 + i, scale=0.2) for i, n in enumerate("123d")},
        "bf": normal(10, seed=12),
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
    }
    return inferred(graph("(float[1,3,16,16] x) => (float[1,10] y)", CONVOLUTIONS, **arrays))


def inferred(model: ir.Model) -> ir.Model:
    """The model with types and shapes, as passes see it."""
    for node in model.graph:
        if node.domain and node.inputs[0] is not None:  # onnx does not know contrib operators
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    InferShapes()(model)
    return model


def samples(shape: tuple[int, ...], count: int = 24, seed: int = 0, name: str = "x") -> Dataset:
    """Normally distributed inputs."""
    data = normal(count, *shape, seed=seed)
    return Dataset(
        tuple(({name: array},) for array in data), None, "generated", "sha256:" + "0" * 64
    )


@cache
def calibrated(build: Any, shape: tuple[int, ...]) -> tuple[ir.Model, Statistics]:
    """A network and its statistics, computed once per test run; neither is to be changed."""
    model = build()
    return model, collect(model, samples(shape))


def transformed(pass_: GraphPass, model: ir.Model) -> ir.Model:
    """A copy after the pass: still a valid model with the same signature."""
    after = ir.from_proto(ir.to_proto(model))
    pass_(after)
    onnx.checker.check_model(ir.to_proto(after))
    assert signature(after) == signature(model)
    return after


def cosine(before: ir.Model, after: ir.Model, dataset: Dataset) -> float:
    """Lowest cosine similarity of the first output over the samples."""
    return min(
        _cosine(next(iter(run(before, call).values())), next(iter(run(after, call).values())))
        for (call,) in dataset.samples
    )


def _cosine(a: Array, b: Array) -> float:
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def with_statistics(
    kind: type[GraphPass], statistics: Statistics, options: Mapping[str, Any] | None = None
) -> GraphPass:
    """A pass with options and a context of its own."""
    return kind(kind.options_type(**options or {}), Context(statistics=statistics))
