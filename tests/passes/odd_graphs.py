"""Graphs that break careless passes: control flow, state, sharing, gaps and odd outputs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tests.passes.models import build, graph, normal
from tests.passes.networks import inferred

SQUARE = normal(64, 64, scale=0.1)
VECTOR = normal(64, seed=1)


def handing_on() -> ir.Model:
    """A loop as exporters of recurrent layers write it: its weight is one of its states."""
    return graph(
        "(float[2,64] x, int64 times) => (float[2,64] y, float[64,64] same, float[S,2,64] all)",
        """
        y, same, z, all = Loop (times, , x, w, x) <
            body = b (int64 i, bool k, float[2,64] s, float[64,64] v, float[2,64] first)
            => (bool k2, float[2,64] s2, float[64,64] v2, float[2,64] first, float[2,64] o) {
                k2 = Identity (k)
                v2 = Identity (v)
                m = MatMul (s, v)
                s2 = Add (m, first)
                o = Tanh (s2)
            }
        >
        """,
        w=SQUARE,
    )


def odd_graphs() -> dict[str, ir.Model]:
    """Name -> a small valid model that ONNX Runtime runs."""
    return {
        "branches that capture": graph(
            "(bool c, float[N,64] x) => (float[N,64] y)",
            """
            h = MatMul (x, w)
            y = If (c) <
                then_branch = t () => (float[N,64] a) { g = Add (h, v) a = MatMul (g, w) },
                else_branch = e () => (float[N,64] b) { g = Mul (h, v) b = Identity (h) }
            >
            """,
            w=SQUARE,
            v=VECTOR,
        ),
        "branch inside a loop": graph(
            "(float[2,64] x) => (float[2,64] y, float[S,2,64] all)",
            """
            y, all = Loop (three, , x) <
                body = b (int64 i, bool k, float[2,64] s)
                => (bool k2, float[2,64] s2, float[2,64] o) {
                    k2 = Identity (k)
                    first = Equal (i, zero)
                    s2 = If (first) <
                        then_branch = t () => (float[2,64] a) { a = MatMul (s, w) },
                        else_branch = e () => (float[2,64] d) { p = MatMul (s, w) d = Relu (p) }
                    >
                    o = Mul (s2, v)
                }
            >
            """,
            three=np.array(3),
            zero=np.array(0),
            w=SQUARE,
            v=VECTOR,
        ),
        "loop that hands a weight on": handing_on(),
        "scan": graph(
            "(float[2,64] state, float[5,2,64] x) => (float[2,64] last, float[5,2,64] all)",
            """
            last, all = Scan <num_scan_inputs = 1,
                body = b (float[2,64] s, float[2,64] e) => (float[2,64] s2, float[2,64] o) {
                    m = MatMul (s, w)
                    s1 = Add (m, e)
                    s2 = Tanh (s1)
                    o = Identity (s2)
                }
            > (state, x)
            """,
            w=SQUARE,
        ),
        "recurrent with state and gaps": graph(
            "(float[T,1,64] x, float[1,1,16] h0, float[1,1,16] c0) => "
            "(float[T,1,1,16] y, float[1,1,16] h, float[1,1,16] c)",
            "y, h, c = LSTM <hidden_size = 16> (x, w, r, , , h0, c0)",
            w=normal(1, 64, 64, scale=0.1),
            r=normal(1, 64, 16, scale=0.1),
        ),
        "one weight for everything": graph(
            "(float[N,64] x, int64[N] i) => (float[N,64] y, float[N,64] z)",
            """
            a = MatMul (x, w)
            b = Gemm <transB = 1> (a, w)
            r = Gather (w, i)
            y = Add (b, r)
            z = MatMul (y, w)
            """,
            w=SQUARE,
        ),
        "outputs of every origin": graph(
            "(float[N,64] x) => (float[N,64] same, float[64] weight, float[N,64] y, float[N,64] z)",
            "same = Identity (x) weight = Identity (v) y = Add (x, v) z = Identity (y)",
            v=VECTOR,
        ),
        "an output that is used on": graph(
            "(float[N,64] x) => (float[N,64] y, float[N,64] z)",
            "y = MatMul (x, w) a = Add (y, v) b = Add (a, x) "
            "z = LayerNormalization <axis = -1> (b, v)",
            w=SQUARE,
            v=VECTOR,
        ),
        "attention with an expanded mask": inferred(
            graph(
                "(float[N,S,8] x, float[N,1,1,S] m) => (float[N,S,8] y)",
                """
                q4 = Reshape (x, split) qt = Transpose <perm = [0,2,1,3]> (q4)
                kt = Transpose <perm = [0,2,3,1]> (q4) scores = MatMul (qt, kt)
                sizes = Shape (scores) wide = Expand (m, sizes) far = Neg (wide)
                masked = Add (scores, far) p = Softmax (masked) mixed = MatMul (p, qt)
                back = Transpose <perm = [0,2,1,3]> (mixed) y = Reshape (back, merge)
                """,
                split=np.array([0, 0, 2, 4]),
                merge=np.array([0, 0, 8]),
            )
        ),
        "scalars": graph(
            "(float a, float b, int64 n) => (float y, int64 m)",
            "c = Mul (a, b) half = Constant <value_float = 0.5> () y = Mul (c, half) m = Neg (n)",
        ),
        "several outputs, one unused": graph(
            "(float[N,64] x) => (float[N,16] y)",
            "a, b, c, d = Split <axis = 1> (x, sizes) e = Add (a, d) y = Relu (e)",
            sizes=np.array([16, 16, 16, 16]),
        ),
        "gaps among the inputs": graph(
            "(float[1,3,8,8] x) => (float[1,3,16,16] y)",
            'c = Clip (x, , one) y = Resize <mode = "nearest"> (c, , scales)',
            one=np.float32(1),
            scales=np.array([1, 1, 2, 2], np.float32),
        ),
        "a weight that callers may override": graph(
            "(float[N,64] x, float[64,64] w) => (float[N,64] y)", "y = MatMul (x, w)", w=SQUARE
        ),
        "double precision": graph(
            "(double[N,64] x) => (double[N,64] y)",
            "h = MatMul (x, w) c = Mul (h, half) y = Softmax (c)",
            w=SQUARE.astype(np.float64),
            half=np.float64(0.5),
        ),
        "half precision": graph(
            "(float16[N,64] x) => (float16[N,64] y)",
            "h = MatMul (x, w) b = Add (h, v) y = Relu (b)",
            w=SQUARE.astype(np.float16),
            v=VECTOR.astype(np.float16),
        ),
        "an old opset": graph(
            "(float[N,3,8,8] x) => (float[N,4] y)",
            """
            c = Conv <pads = [1, 1, 1, 1]> (x, k)
            n = BatchNormalization (c, s, s, s, p)
            q = Squeeze <axes = [0]> (one)
            m = ReduceMean <axes = [2, 3], keepdims = 0> (n)
            y = Mul (m, q)
            """,
            opset=11,
            k=normal(4, 3, 3, 3),
            s=normal(4),
            p=np.ones(4, np.float32),
            one=np.ones((1, 4), np.float32),
        ),
        "a sequence": graph(
            "(float[4,64] x) => (float[2,64] y)",
            "s = SplitToSequence <axis = 0> (x, two) e = SequenceAt (s, zero) y = MatMul (e, w)",
            two=np.array(2),
            zero=np.array(0),
            w=SQUARE,
        ),
        "an unused input and dead ends": graph(
            "(float[N,64] x, float[N] unused) => (float[N,64] y)",
            "a = Neg (x) dead = MatMul (x, w) b = MatMul (a, w) y = Relu (b) end = Abs (dead)",
            w=SQUARE,
        ),
        "local functions": build(
            """
            <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
            main (float[N,4] x) => (float[N,4] y) { a = local.twice (x) y = local.twice (a) }
            <domain: "local", opset_import: ["" : 17]>
            twice (v) => (r) { r = Add (v, v) }
            """
        ),
        "quantized already": graph(
            "(float[N,64] x) => (float[N,64] y)",
            """
            xq = QuantizeLinear (x, scale, zero)
            xd = DequantizeLinear (xq, scale, zero)
            wd = DequantizeLinear <axis = 1> (wq, ws)
            y = MatMul (xd, wd)
            """,
            scale=np.float32(0.05),
            zero=np.uint8(128),
            wq=(SQUARE * 200).astype(np.int8),
            ws=np.full(64, 0.005, np.float32),
        ),
    }
