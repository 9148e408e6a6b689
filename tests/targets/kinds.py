"""Small models of every kind that docs/targets.md has a row for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from tests.passes.models import build, normal

Array = NDArray[Any]


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Attributes:
        signature: Inputs and outputs in ONNX's textual syntax.
        body: Its nodes.
        calls: Inputs of some calls, of different sizes where sizes are open.
        constants: Its initializers.
        states: Output -> input, of recurrences.
        blocked: The operator or input that LiteRT lacks; empty if it goes through.
        opset: Version of the standard operators.
    """

    signature: str
    body: str
    calls: tuple[Mapping[str, Array], ...]
    constants: Mapping[str, Array] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    blocked: str = ""
    opset: int = 20

    def model(self) -> ir.Model:
        """The graph."""
        imports = f'["" : {self.opset}, "com.microsoft" : 1, "ai.onnx.ml" : 3]'
        head = f"<ir_version: 8, opset_import: {imports}> main {self.signature}"
        return build(f"{head} {{ {self.body} }}", **self.constants)


def _codes(*shape: int) -> Array:
    return np.random.default_rng(1).integers(-127, 127, shape).astype(np.int8)


def _sound(samples: int) -> Array:
    return normal(1, samples, scale=0.3)


LSTM = {"w": normal(1, 64, 6, scale=0.3), "r": normal(1, 64, 16, scale=0.3)}
GRU = {"w": normal(2, 48, 6, scale=0.3), "r": normal(2, 48, 16, scale=0.3)}
STEP = {"w": normal(8, 8, scale=0.4), "yes": np.array(True)}
IMAGE = normal(2, 3, 16, 16, scale=0.3)
CONV = {"w": normal(6, 3, 3, 3, scale=0.3), "v": normal(6, 4)}
SCALES = {
    "s": np.float32(0.02), "z": np.uint8(128), "t": np.float32(0.05), "u": np.uint8(120),
    "wq": _codes(6, 3, 3, 3), "ws": np.full(6, 0.005, np.float32), "wz": np.zeros(6, np.int8),
    "v": normal(6, 4),
}  # fmt: skip

KINDS: dict[str, Kind] = {
    "LSTM with states": Kind(
        "(float[T,B,6] x, float[1,B,16] h, float[1,B,16] c)"
        " => (float[T,1,B,16] y, float[1,B,16] hn, float[1,B,16] cn)",
        "y, hn, cn = LSTM <hidden_size = 16> (x, w, r, , , h, c)",
        tuple({"x": normal(time, batch, 6)} for time, batch in ((7, 1), (30, 2))),
        LSTM,
        states={"hn": "h", "cn": "c"},
    ),
    "GRU in both directions": Kind(
        "(float[T,B,6] x) => (float[T,2,B,16] y, float[2,B,16] h)",
        'y, h = GRU <hidden_size = 16, direction = "bidirectional"> (x, w, r)',
        tuple({"x": normal(time, batch, 6)} for time, batch in ((7, 1), (30, 2))),
        GRU,
    ),
    "recurrent layer with lengths": Kind(
        "(float[T,B,6] x, int32[B] lengths) => (float[T,1,B,16] y)",
        "y = LSTM <hidden_size = 16> (x, w, r, , lengths)",
        ({"x": normal(7, 2, 6), "lengths": np.array([7, 3], np.int32)},),
        LSTM,
        blocked="LSTM",
    ),
    "mel front end": Kind(
        "(float[B,T] x) => (float[B,F,20] y)",
        """k = HannWindow (n) s = STFT (x, hop, k, n) p = Mul (s, s) q = ReduceSum <keepdims = 0>
        (p, last) f = MelWeightMatrix (bins, n, rate, low, high) m = MatMul (q, f)
        c = Clip (m, least) y = Log (c)""",
        ({"x": _sound(800)}, {"x": _sound(1111)}),
        {
            "n": np.array(256),
            "hop": np.array(128),
            "last": np.array([-1]),
            "bins": np.array(20),
            "rate": np.array(16000),
            "low": np.float32(60),
            "high": np.float32(7000),
            "least": np.float32(1e-3),
        },
    ),
    "convolutions over sound": Kind(
        "(float[B,1,T] x) => (float[B,8,F] y)",
        """a = Conv <strides = [5]> (x, w) b = Gelu (a) c = Conv <strides = [2]> (b, v)
        y = Elu (c)""",
        ({"x": normal(1, 1, 400)}, {"x": normal(2, 1, 333)}),
        {"w": normal(8, 1, 10, scale=0.3), "v": normal(8, 8, 3, scale=0.2)},
    ),
    "If": Kind(
        "(float[B,8] x, bool flag) => (float[B,8] y)",
        """y = If (flag) <then_branch = t () => (float[B,8] a) { a = MatMul (x, w) },
        else_branch = e () => (float[B,8] b) { b = Relu (x) }>""",
        tuple(
            {"x": normal(n, 8), "flag": np.array(flag)} for n in (1, 3) for flag in (True, False)
        ),
        STEP,
    ),
    "If with results of two ranks": Kind(
        "(float[2,8] x, bool flag) => (float y)",
        """a = If (flag) <then_branch = t () => (float[16] p) { p = Reshape (x, flat) },
        else_branch = e () => (float[2,8] q) { q = Relu (x) }> y = ReduceSum <keepdims = 0> (a)""",
        ({"x": normal(2, 8), "flag": np.array(True)},),
        {"flat": np.array([-1])},
        blocked="If",
    ),
    "Loop": Kind(
        "(float[B,8] x, int64 n) => (float[B,8] y, float[K,B,8] all)",
        """y, all = Loop (n, yes, x) <body = b (int64 i, bool on, float[B,8] s)
        => (bool go, float[B,8] next, float[B,8] seen)
        { go = Identity (on) m = MatMul (s, w) next = Tanh (m) seen = Relu (next) }>""",
        tuple({"x": normal(b, 8), "n": np.array(n)} for b, n in ((1, 1), (2, 5))),
        STEP,
    ),
    "Scan": Kind(
        "(float[B,8] s0, float[T,B,8] x) => (float[B,8] last, float[T,B,8] all)",
        """last, all = Scan <num_scan_inputs = 1, body = b (float[B,8] s, float[B,8] e)
        => (float[B,8] next, float[B,8] seen)
        { m = MatMul (s, w) a = Add (m, e) next = Tanh (a) seen = Identity (next) }> (s0, x)""",
        tuple({"s0": normal(b, 8), "x": normal(t, b, 8)} for b, t in ((1, 4), (2, 20))),
        STEP,
    ),
    "sequences of tensors": Kind(
        "(float[B,8] x) => (float[B,8] y)",
        """s = SplitToSequence <axis = 1> (x, half) a = SequenceAt (s, zero)
        b = SequenceAt (s, one) c = SequenceConstruct (b, a)
        d = ConcatFromSequence <axis = 1> (c) y = MatMul (d, w)""",
        ({"x": normal(2, 8)},),
        {**STEP, "half": np.array(4), "zero": np.array(0), "one": np.array(1)},
        blocked="SplitToSequence",
    ),
    "integers, booleans, bytes, scalars": Kind(
        "(int32[B,5] ids, bool[B,5] keep, uint8[B,4] bytes, float gain)"
        " => (float[B,6] y, int64[B] best, bool[B] large)",
        """e = Gather (table, ids) k = Cast <to = 1> (keep) u = Unsqueeze (k, last)
        m = Mul (e, u) s = ReduceSum <keepdims = 0> (m, one) f = Cast <to = 1> (bytes)
        g = MatMul (f, w) a = Add (s, g) y = Mul (a, gain)
        best = ArgMax <axis = 1, keepdims = 0> (y) top = ReduceMax <keepdims = 0> (y, one)
        large = Greater (top, half)""",
        tuple(
            {
                "ids": np.arange(5 * b, dtype=np.int32).reshape(b, 5) % 20,
                "keep": np.arange(5 * b).reshape(b, 5) % 3 > 0,
                "bytes": np.arange(4 * b, dtype=np.uint8).reshape(b, 4) * 7,
                "gain": np.array(0.7, np.float32),
            }
            for b in (1, 3)
        ),
        {
            "table": normal(20, 6),
            "last": np.array([-1]),
            "one": np.array([1]),
            "w": normal(4, 6, scale=0.01),
            "half": np.float32(0.5),
        },
    ),
    "text as an input": Kind(
        "(string[B] word, float[B,8] x) => (float[B,8] y)",
        """i = ai.onnx.ml.LabelEncoder <keys_strings = ["on", "off"], values_int64s = [1, 2],
        default_int64 = 0> (word) e = Gather (table, i) m = MatMul (x, w) y = Add (m, e)""",
        ({"word": np.array(["on", "?"], object), "x": normal(2, 8)},),
        {**STEP, "table": normal(3, 8)},
        blocked="word",
    ),
    "detector with suppression": Kind(
        "(float[1,3,16,16] x) => (int64[N,3] kept)",
        """a = Conv <strides = [4,4]> (x, f) b = Reshape (a, to) c = Transpose <perm = [0,2,1]> (b)
        boxes = Slice (c, zero, four, two) s = Slice (b, four, six, one) t = Sigmoid (s)
        kept = NonMaxSuppression (boxes, t, most, overlap)""",
        ({"x": IMAGE[:1]},),
        {
            "f": normal(6, 3, 4, 4),
            "to": np.array([1, 6, 16]),
            "zero": np.array([0]),
            "four": np.array([4]),
            "six": np.array([6]),
            "one": np.array([1]),
            "two": np.array([2]),
            "most": np.array([3]),
            "overlap": np.array([0.5], np.float32),
        },
    ),
    "QDQ": Kind(
        "(float[B,3,16,16] x) => (float[B,4] y)",
        """q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z)
        k = DequantizeLinear <axis = 0> (wq, ws, wz) c = Conv (d, k) r = Relu (c)
        p = QuantizeLinear (r, t, u) e = DequantizeLinear (p, t, u) g = GlobalAveragePool (e)
        f = Flatten (g) y = MatMul (f, v)""",
        ({"x": IMAGE[:1]}, {"x": IMAGE}),
        SCALES,
    ),
    "QOperator": Kind(
        "(float[B,3,16,16] x) => (float[B,4] y)",
        """q = QuantizeLinear (x, s, z) c = QLinearConv (q, s, z, wq, ws, wz, t, u)
        g = com.microsoft.QLinearGlobalAveragePool (c, t, u, t, u) d = DequantizeLinear (g, t, u)
        f = Flatten (d) y = MatMul (f, v)""",
        ({"x": IMAGE[:1]}, {"x": IMAGE}),
        SCALES,
    ),
    "float16 inputs and outputs": Kind(
        "(float16[B,8] x) => (float16[B,8] y)",
        "a = MatMul (x, w) y = Tanh (a)",
        tuple({"x": normal(b, 8).astype(np.float16)} for b in (1, 3)),
        {"w": STEP["w"].astype(np.float16)},
    ),
    "float64 inputs and outputs": Kind(
        "(double[B,8] x) => (double[B,8] y)",
        "a = MatMul (x, w) y = Tanh (a)",
        tuple({"x": normal(b, 8).astype(np.float64)} for b in (1, 3)),
        {"w": STEP["w"].astype(np.float64)},
    ),
    "opset 7": Kind(
        "(float[1,3,16,16] x) => (float[1,4] y)",
        """c = Conv (x, w) r = Relu (c) g = GlobalAveragePool (r) f = Flatten (g)
        y = Gemm (f, v, b)""",
        ({"x": IMAGE[:1]},),
        {**CONV, "b": normal(4)},
        opset=7,
    ),
    "opset 23": Kind(
        "(float[B,3,16,16] x) => (float[B,4] y)",
        """c = Conv (x, w) r = HardSwish (c) g = GlobalAveragePool (r) f = Flatten (g)
        n = RMSNormalization (f, ones) y = MatMul (n, v)""",
        ({"x": IMAGE[:1]}, {"x": IMAGE}),
        {**CONV, "ones": np.ones(6, np.float32)},
        opset=23,
    ),
    "integers past 32 bits": Kind(
        "(int64[N] x) => (int64[N] y)",
        "y = Add (x, large)",
        ({"x": np.arange(4)},),
        {"large": np.array(2**40)},
        blocked="large",
    ),
    "random numbers": Kind(
        "(float[B,8] x) => (float[B,8] y)",
        "r = RandomNormalLike <scale = 1e-6, seed = 1.0> (x) y = Add (x, r)",
        ({"x": normal(2, 8)},),
        blocked="RandomNormalLike",
    ),
}
