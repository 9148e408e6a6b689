"""Networks of the kinds that boards run, small, and what they are calibrated with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from converters.materialize import save
from tests.passes.models import Array, graph, normal
from tests.passes.networks import ATTENTION, FEED_FORWARD, HIDDEN, WIDE, inferred

IMAGE = (1, 3, 16, 16)
TOKENS = (2, 7, HIDDEN)

_RESIDUAL = """
    c0 = Conv <pads = [1,1,1,1]> (x, w0) r0 = Relu (c0)
    a1 = Conv <pads = [1,1,1,1]> (r0, wa) ar = Relu (a1)
    a2 = Conv <pads = [1,1,1,1]> (ar, wb)
    s1 = Add (a2, r0) r1 = Relu (s1)
    b1 = Conv <pads = [1,1,1,1], strides = [2,2]> (r1, wc) br = Relu (b1)
    b2 = Conv <pads = [1,1,1,1]> (br, wd)
    short = Conv <strides = [2,2]> (r1, ws)
    s2 = Add (short, b2) r2 = Relu (s2)
    g = GlobalAveragePool (r2) f = Flatten (g) y = Gemm <transB = 1> (f, wf, bf)
"""


def residual() -> ir.Model:
    """ResNet's two kinds of blocks: over an identity, and over a convolution."""
    weights = {
        "w0": normal(16, 3, 3, 3, seed=1, scale=0.3),
        **{f"w{name}": normal(16, 16, 3, 3, seed=i, scale=0.1) for i, name in enumerate("abcd")},
        "ws": normal(16, 16, 1, 1, seed=9, scale=0.3),
        "wf": normal(10, 16, seed=5, scale=0.5),
        "bf": normal(10, seed=6),
    }
    return inferred(graph("(float[1,3,16,16] x) => (float[1,10] y)", _RESIDUAL, **weights))


def depthwise() -> ir.Model:
    """MobileNet's inverted bottleneck with a clamp, and a residual."""
    body = """
        c = Conv <pads = [1,1,1,1]> (x, w0) c6 = Clip (c, zero, six)
        e = Conv (c6, we) e6 = Clip (e, zero, six)
        d = Conv <pads = [1,1,1,1], group = 32> (e6, wd) d6 = Clip (d, zero, six)
        p = Conv (d6, wp) s = Add (c6, p)
        g = GlobalAveragePool (s) f = Flatten (g) y = Gemm <transB = 1> (f, wf, bf)
    """
    weights: dict[str, Array] = {
        "w0": normal(8, 3, 3, 3, seed=1, scale=0.3),
        "we": normal(32, 8, 1, 1, seed=2, scale=0.3),
        "wd": normal(32, 1, 3, 3, seed=3, scale=0.3),
        "wp": normal(8, 32, 1, 1, seed=4, scale=0.2),
        "wf": normal(10, 8, seed=5, scale=0.5),
        "bf": normal(10, seed=6),
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
    }
    return inferred(graph("(float[1,3,16,16] x) => (float[1,10] y)", body, **weights))


def upsampling(group: int = 1) -> ir.Model:
    """A decoder of pictures: transposed convolution beside a resized branch, concatenated."""
    body = f"""
        c = Conv <pads = [1,1,1,1]> (x, w1) r = Relu (c)
        t = ConvTranspose <strides = [2,2], group = {group}> (r, wt, bt) u = Relu (t)
        v = Resize <mode = "nearest"> (r, , sizes)
        joined = Concat <axis = 1> (u, v) y = Conv (joined, w2)
        q = Conv (u, w3)
        p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (r) z = Conv (p, w3)
    """
    weights: dict[str, Array] = {
        "w1": normal(16, 3, 3, 3, scale=0.3),
        "wt": normal(16, 16 // group, 2, 2, seed=2, scale=0.2),
        "bt": normal(16, seed=5),
        "w2": normal(8, 32, 1, 1, seed=3, scale=0.2),
        "w3": normal(8, 16, 1, 1, seed=8),
        "sizes": np.array([1, 1, 2, 2], np.float32),
    }
    signature = "(float[1,3,16,16] x) => (float[1,8,32,32] y, float[1,8,32,32] q, float[1,8,8,8] z)"
    return inferred(graph(signature, body, **weights))


def transformer() -> ir.Model:
    """A layer of an encoder with outlier channels, in standard operators."""
    scale = HIDDEN**-0.5
    weights: dict[str, Array] = {
        **{f"w{n}": normal(HIDDEN, HIDDEN, seed=i, scale=scale) for i, n in enumerate("qkvo")},
        **{f"b{n}": normal(HIDDEN, seed=i + 9, scale=0.1) for i, n in enumerate("qkvo")},
        "w1": normal(HIDDEN, WIDE, seed=5, scale=scale),
        "w2": normal(WIDE, HIDDEN, seed=6, scale=WIDE**-0.5),
        "b1": normal(WIDE, seed=7, scale=0.1),
        "b2": normal(HIDDEN, seed=8, scale=0.1),
        **{name: np.ones(HIDDEN, np.float32) for name in ("g0", "g1", "g2")},
        **{name: np.zeros(HIDDEN, np.float32) for name in ("s0", "s1", "s2")},
        "split": np.array([0, 0, 4, HIDDEN // 4]),
        "merge": np.array([0, 0, HIDDEN]),
        "half": np.array(0.5, np.float32),
        "one": np.array(1, np.float32),
        "root": np.array(2**0.5, np.float32),
    }
    weights["g0"][[3, 17]] = 20.0
    gelu = """
        f2 = Div (f1, root) f3 = Erf (f2) f4 = Add (f3, one) f5 = Mul (f1, f4) f = Mul (f5, half)
    """
    body = ATTENTION + FEED_FORWARD.replace("f = com.microsoft.Gelu (f1)", gelu)
    signature = f"(float[N,S,{HIDDEN}] x) => (float[N,S,{HIDDEN}] y)"
    return inferred(graph(signature, body.replace("Sum", "Add"), **weights))


def written(model: ir.Model, folder: Path) -> Path:
    """A graph's file; the graph itself, which tests share, keeps its weights."""
    return save(ir.from_proto(ir.to_proto(model)), folder)
