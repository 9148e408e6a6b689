"""Networks written as exporters write them, one for each habit that a pass undoes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[np.generic]

HIDDEN, HEADS, TOKENS = 192, 6, 96
CLASSES = 512


def _normal(*shape: int, seed: int, scale: float = 0.08) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def _build(signature: str, body: str, **arrays: Array | np.generic) -> ir.Model:
    text = f'<ir_version: 8, opset_import: ["" : 17]> main {signature} {{ {body} }}'
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()
    )
    return ir.from_proto(proto)


ENCODER = """
    dims = Shape (x)
    d0 = Gather (dims, i0)
    batch = Unsqueeze (d0, v0)
    d1 = Gather (dims, i1)
    tokens = Unsqueeze (d1, v0)
    split = Concat <axis = 0> (batch, tokens, heads, size)
    merged = Concat <axis = 0> (batch, tokens, hidden)
    qm = MatMul (x, wq)
    qb = Add (qm, b)
    qh = Reshape (qb, split)
    q = Transpose <perm = [0, 2, 1, 3]> (qh)
    km = MatMul (x, wk)
    kb = Add (km, b)
    kh = Reshape (kb, split)
    k = Transpose <perm = [0, 2, 3, 1]> (kh)
    vm = MatMul (x, wv)
    vb = Add (vm, b)
    vh = Reshape (vb, split)
    v = Transpose <perm = [0, 2, 1, 3]> (vh)
    q4 = Mul (q, root)
    k4 = Mul (k, root)
    s = MatMul (q4, k4)
    masked = Add (s, mask)
    p = Softmax (masked)
    c = MatMul (p, v)
    ct = Transpose <perm = [0, 2, 1, 3]> (c)
    cr = Reshape (ct, merged)
    om = MatMul (cr, wo)
    ob = Add (om, b)
    r1 = Add (ob, x)
    m1 = ReduceMean <axes = [-1]> (r1)
    c1 = Sub (r1, m1)
    s1 = Mul (c1, c1)
    v1 = ReduceMean <axes = [-1]> (s1)
    e1 = Add (v1, eps)
    q1 = Sqrt (e1)
    i1n = Reciprocal (q1)
    n1 = Mul (c1, i1n)
    g1 = Mul (n1, gain)
    l1 = Add (g1, b)
    u = MatMul (l1, w1)
    u2 = Mul (u, k3)
    u3 = Mul (u, u2)
    u4 = Mul (u, u3)
    u5 = Add (u, u4)
    u6 = Mul (u5, k2)
    t = Tanh (u6)
    t1 = Add (t, one)
    t2 = Mul (t1, half)
    f = Mul (u, t2)
    o = MatMul (f, w2)
    r2 = Add (o, l1)
    m2 = ReduceMean <axes = [-1]> (r2)
    c2 = Sub (r2, m2)
    s2 = Pow (c2, two)
    v2 = ReduceMean <axes = [-1]> (s2)
    e2 = Add (v2, eps)
    q2 = Sqrt (e2)
    n2 = Div (c2, q2)
    g2 = Mul (n2, gain)
    y = Add (g2, b)
"""


def encoder() -> ir.Model:
    """One transformer block in primitive operators, with shapes computed at run time."""
    weights = {
        name: _normal(HIDDEN, HIDDEN, seed=i) for i, name in enumerate(("wq", "wk", "wv", "wo"))
    }
    return _build(
        f"(float[N,T,{HIDDEN}] x, float[N,1,1,T] mask) => (float[N,T,{HIDDEN}] y)",
        ENCODER,
        **weights,
        w1=_normal(HIDDEN, 4 * HIDDEN, seed=5),
        w2=_normal(4 * HIDDEN, HIDDEN, seed=6),
        b=_normal(HIDDEN, seed=7),
        gain=np.ones(HIDDEN, np.float32),
        i0=np.array(0),
        i1=np.array(1),
        v0=np.array([0]),
        heads=np.array([HEADS]),
        size=np.array([HIDDEN // HEADS]),
        hidden=np.array([HIDDEN]),
        root=np.float32((HIDDEN / HEADS) ** -0.25),
        eps=np.float32(1e-5),
        k3=np.float32(0.044715),
        k2=np.float32(np.sqrt(2 / np.pi)),
        one=np.float32(1),
        half=np.float32(0.5),
        two=np.float32(2),
    )


def decoder_of_images() -> ir.Model:
    """Transposed convolutions with batch normalization, and a weight that nothing uses."""
    norm = {name: np.abs(_normal(32, seed=i)) + 0.5 for i, name in enumerate(("g", "b", "m", "v"))}
    return _build(
        "(float[N,32,24,24] x) => (float[N,32,96,96] y)",
        """
        a = ConvTranspose <strides = [2, 2]> (x, w)
        an = BatchNormalization (a, g, b, m, v)
        ar = Relu (an)
        c = ConvTranspose <strides = [2, 2]> (ar, w2)
        y = BatchNormalization (c, g, b, m, v)
        old = Conv (x, unused)
        """,
        w=_normal(32, 32, 2, 2, seed=1),
        w2=_normal(32, 32, 2, 2, seed=3),
        unused=_normal(64, 32, 3, 3, seed=2),
        **norm,
    )


RECURRENT = """
    wide = Equal (rate, wideband)
    y = If (wide) <
        then_branch = t () => (float[T,1,1,64] a) {
            i0 = Slice (w, s0, s1, axis)
            i1 = Slice (w, s1, s2, axis)
            i = Concat <axis = 1> (i1, i0)
            a, ah = LSTM <hidden_size = 64> (x, i, r)
        },
        else_branch = e () => (float[T,1,1,64] n) {
            j0 = Slice (w, s0, s1, axis)
            j1 = Slice (w, s1, s2, axis)
            j = Concat <axis = 1> (j1, j0)
            n, nh = LSTM <hidden_size = 64> (x, j, r8)
        }
    >
"""


def recurrent() -> ir.Model:
    """A recurrent layer per sampling rate, its weights put together from slices."""
    return _build(
        "(float[T,1,64] x, int64 rate) => (float[T,1,1,64] y)",
        RECURRENT,
        w=_normal(1, 256, 64, seed=1),
        r=_normal(1, 256, 64, seed=2),
        r8=_normal(1, 256, 64, seed=3),
        s0=np.array([0]),
        s1=np.array([128]),
        s2=np.array([256]),
        axis=np.array([1]),
        wideband=np.array(16000),
    )


def one_hot() -> ir.Model:
    """Classes encoded one-hot and multiplied by a table."""
    return _build(
        "(int64[N,T] x) => (float[N,T,64] y)",
        "h = OneHot (x, depth, values) y = MatMul (h, table)",
        depth=np.array(CLASSES),
        values=np.array([0, 1], np.float32),
        table=_normal(CLASSES, 64, seed=1),
    )


def scaled_convolutions() -> ir.Model:
    """Convolutions followed by a learned number, as in mobile text recognition."""
    return _build(
        "(float[N,32,48,48] x) => (float[N,32,48,48] y)",
        """
        a = Conv <pads = [1, 1, 1, 1], group = 32> (x, w)
        am = Mul (a, factor)
        ar = HardSwish (am)
        c = Conv (ar, p)
        y = Mul (c, factor)
        """,
        w=_normal(32, 1, 3, 3, seed=1),
        p=_normal(32, 32, 1, 1, seed=2),
        factor=np.array([1.7], np.float32),
    )


def twins() -> ir.Model:
    """A table of embeddings that was exported twice."""
    return _build(
        "(int64[N,T] x) => (float[N,T,512] y)",
        "e = Gather (table, x) h = Relu (e) t = Gather (again, x) s = Add (h, t) "
        "y = MatMul (s, head)",
        table=_normal(CLASSES, 64, seed=1),
        again=_normal(CLASSES, 64, seed=1),
        head=_normal(64, CLASSES, seed=2),
    )
