"""Each operator alone, lowered, gives what ONNX Runtime gives: fixed sizes and open ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from converters.litert import lower
from edge_sdk.errors import UnsupportedOperatorError
from edge_sdk.runtime.engine import SessionOptions
from edge_sdk.runtime.engines.litert import LiteRtEngine
from tests.litert.agreement import assert_agrees, error, expected, network

pytestmark = pytest.mark.converts

R = np.random.default_rng(7)
Case = tuple[str, dict[str, Any], dict[str, Any]]


def f(*shape: int) -> NDArray[np.float32]:
    return R.standard_normal(shape).astype(np.float32)


def i(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, np.int64)


def positive(*shape: int) -> NDArray[np.float32]:
    return np.abs(f(*shape)) + np.float32(0.3)


def whole(low: int, high: int, *shape: int) -> NDArray[np.int64]:
    return R.integers(low, high, shape)


IMAGE = {"x": f(2, 4, 9, 9)}
FLAT = {"x": f(2, 5, 6)}

UNARY = (
    *("Abs", "Ceil", "Cos", "Exp", "Floor", "Neg", "Round", "Sign", "Sin"),
    *("HardSwish", "Sigmoid", "Tanh", "Relu", "LeakyRelu", "Elu", "Selu"),
    *(
        "Gelu",
        "HardSigmoid",
        "Softplus",
        "Mish",
        "Softsign",
        "ThresholdedRelu",
        "Erf",
        "Identity",
        "Celu",
    ),
)
REDUCTIONS = (
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1"),
    *("ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
)

# body, inputs, constants and options of ``network``
ELEMENTWISE: dict[str, Case] = {
    **{op: (f"y = {op}(x)", FLAT, {}) for op in UNARY},
    **{op: (f"y = {op}(x)", {"x": positive(3, 4)}, {}) for op in ("Sqrt", "Log", "Reciprocal")},
    "leaky": ("y = LeakyRelu<alpha = 0.3>(x)", IMAGE, {}),
    "elu": ("y = Elu<alpha = 0.5>(x)", FLAT, {}),
    "celu": ("y = Celu<alpha = 2.0>(x)", FLAT, {}),
    "gelu tanh": ('y = Gelu<approximate = "tanh">(x)', FLAT, {}),
    "contrib gelu": ("y = com.microsoft.Gelu(x)", FLAT, {"outputs": "y"}),
    "quick gelu": ("y = com.microsoft.QuickGelu(x)", FLAT, {}),
    "bias gelu": ("y = com.microsoft.BiasGelu(x, b)", FLAT, {"b": f(6)}),
    "prelu": ("y = PRelu(x, s)", IMAGE, {"s": f(4, 1, 1)}),
    "prelu one": ("y = PRelu(x, s)", FLAT, {"s": f(1)}),
    "clip": ("y = Clip(x, a, b)", FLAT, {"a": np.float32(-0.5), "b": np.float32(0.7)}),
    "clip below": ("y = Clip(x, a)", FLAT, {"a": np.float32(-0.5)}),
    "clip 0 1": ("y = Clip(x, a, b)", FLAT, {"a": np.float32(0), "b": np.float32(1)}),
    "relu int": ("y = Relu(x)", {"x": whole(-5, 5, 7).astype(np.int32)}, {"outputs": "y:int32"}),
    **{
        op: (f"y = {op}(x, z)", {"x": f(2, 5, 6), "z": positive(5, 1)}, {})
        for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean")
    },
    "pow": ("y = Pow(x, z)", {"x": positive(2, 3), "z": f(3)}, {}),
    "square": ("y = Pow(x, z)", {"x": f(2, 3)}, {"z": np.float32(2)}),
    "cube": ("y = Pow(x, z)", {"x": f(2, 3)}, {"z": np.float32(3)}),
    "root": ("y = Pow(x, z)", {"x": positive(2, 3)}, {"z": np.float32(0.5)}),
    "sum of 3": ("y = Sum(x, z, x)", {"x": f(2, 3), "z": f(3)}, {}),
    "int div": (
        "y = Div(x, z)",
        {"x": whole(-20, 20, 9), "z": whole(1, 5, 9)},
        {"outputs": "y:int64"},
    ),
    "mod": ("y = Mod(x, z)", {"x": whole(-20, 20, 9), "z": i(3)}, {"outputs": "y:int64"}),
    "fmod": ("y = Mod<fmod = 1>(x, z)", {"x": f(9) * 5, "z": positive(9)}, {}),
    "where": (
        "c = Greater(x, z) y = Where(c, x, z)",
        {"x": f(2, 5, 6), "z": f(6)},
        {},
    ),
    **{
        op: (
            f"y = {op}(x, z)",
            {"x": whole(0, 3, 3, 4), "z": whole(0, 3, 4)},
            {"outputs": "y:bool"},
        )
        for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    },
    "logic": (
        "c = Greater(x, z) d = Less(x, w) e = And(c, d) g = Or(e, c) h = Xor(g, d) y = Not(h)",
        {"x": f(2, 6), "z": f(6), "w": f(6)},
        {"outputs": "y:bool"},
    ),
    "isnan": (
        "a = Log(x) y = IsNaN(a)",
        {"x": f(9)},
        {"outputs": "y:bool"},
    ),
    "softmax": ("y = Softmax(x)", FLAT, {}),
    "softmax 1": ("y = Softmax<axis = 1>(x)", IMAGE, {}),
    "log softmax": ("y = LogSoftmax<axis = -1>(x)", FLAT, {}),
    "cast": ("a = Cast<to = 7>(x) b = Cast<to = 1>(a) y = Add(b, x)", {"x": f(3, 4) * 9}, {}),
    "cast bool": ("a = Cast<to = 9>(x) y = Cast<to = 1>(a)", {"x": whole(0, 2, 8)}, {}),
    "cast double": ("a = Cast<to = 11>(x) y = Cast<to = 1>(a)", {"x": f(8)}, {}),
}
CONVOLUTION: dict[str, Case] = {
    "plain": ("y = Conv(x, w, b)", IMAGE, {"w": f(6, 4, 3, 3), "b": f(6)}),
    "no bias, padded": ("y = Conv<pads = [1, 1, 1, 1]>(x, w)", IMAGE, {"w": f(6, 4, 3, 3)}),
    "strides": (
        "y = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, w)",
        IMAGE,
        {"w": f(6, 4, 3, 3)},
    ),
    "uneven": (
        "y = Conv<pads = [0, 1, 2, 3], strides = [2, 1]>(x, w)",
        IMAGE,
        {"w": f(6, 4, 3, 2)},
    ),
    "dilated": (
        "y = Conv<pads = [2, 2, 2, 2], dilations = [2, 2]>(x, w)",
        IMAGE,
        {"w": f(6, 4, 3, 3)},
    ),
    "depthwise": (
        "y = Conv<group = 4, pads = [1, 1, 1, 1]>(x, w, b)",
        IMAGE,
        {"w": f(8, 1, 3, 3), "b": f(8)},
    ),
    "groups": ("y = Conv<group = 2>(x, w, b)", IMAGE, {"w": f(6, 2, 3, 3), "b": f(6)}),
    "one channel": ("y = Conv(x, w)", {"x": f(1, 1, 5, 5)}, {"w": f(2, 1, 3, 3)}),
    "same": (
        'y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w)',
        IMAGE,
        {"w": f(6, 4, 3, 3)},
    ),
    "same lower": (
        'y = Conv<auto_pad = "SAME_LOWER", strides = [2, 2]>(x, w)',
        IMAGE,
        {"w": f(6, 4, 2, 2)},
    ),
    "line": ("y = Conv<pads = [2, 0]>(x, w, b)", FLAT, {"w": f(3, 5, 3), "b": f(3)}),
    "depthwise line": ("y = Conv<group = 5, strides = [2]>(x, w)", FLAT, {"w": f(5, 1, 3)}),
    "volume": ("y = Conv(x, w, b)", {"x": f(1, 2, 5, 5, 5)}, {"w": f(3, 2, 3, 3, 3), "b": f(3)}),
    "relu": ("a = Conv(x, w, b) y = Relu(a)", IMAGE, {"w": f(6, 4, 3, 3), "b": f(6)}),
    "relu6": (
        "a = Conv(x, w) c = Clip(a, lo, hi) y = Conv(c, v)",
        IMAGE,
        {"w": f(6, 4, 3, 3), "v": f(2, 6, 1, 1), "lo": np.float32(0), "hi": np.float32(6)},
    ),
    "transposed": ("y = ConvTranspose(x, w, b)", IMAGE, {"w": f(4, 3, 3, 3), "b": f(3)}),
    "transposed, strides": (
        "y = ConvTranspose<strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1]>(x, w)",
        IMAGE,
        {"w": f(4, 3, 3, 3)},
    ),
    "transposed, padding past the end": (
        "y = ConvTranspose<strides = [3, 3], output_padding = [2, 1]>(x, w)",
        IMAGE,
        {"w": f(4, 3, 2, 2)},
    ),
    "transposed groups": (
        "y = ConvTranspose<group = 2, strides = [2, 2]>(x, w, b)",
        IMAGE,
        {"w": f(4, 3, 2, 2), "b": f(6)},
    ),
    "transposed line": ("y = ConvTranspose<strides = [2]>(x, w)", FLAT, {"w": f(5, 3, 4)}),
    "max": ("y = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(x)", IMAGE, {}),
    "max padded": (
        "y = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(x)",
        IMAGE,
        {},
    ),
    "max uneven": ("y = MaxPool<kernel_shape = [2, 2], pads = [1, 0, 0, 0]>(x)", IMAGE, {}),
    "max ceil": (
        "y = MaxPool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1>(x)",
        IMAGE,
        {},
    ),
    "max line": ("y = MaxPool<kernel_shape = [2], strides = [2]>(x)", FLAT, {}),
    "average": ("y = AveragePool<kernel_shape = [3, 3], strides = [2, 2]>(x)", IMAGE, {}),
    "average padded": ("y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x)", IMAGE, {}),
    "average counting": (
        "y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>(x)",
        IMAGE,
        {},
    ),
    "average uneven": ("y = AveragePool<kernel_shape = [2, 2], pads = [1, 0, 0, 0]>(x)", IMAGE, {}),
    "average ceil": (
        "y = AveragePool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1>(x)",
        IMAGE,
        {},
    ),
    "global average": ("y = GlobalAveragePool(x)", IMAGE, {}),
    "global max": ("y = GlobalMaxPool(x)", FLAT, {}),
    **{
        f"resize {mode} {way}": (
            f'y = Resize<mode = "{mode}", coordinate_transformation_mode = "{way}">(x, , s)',
            {"x": f(1, 2, 5, 4)},
            {"s": np.array([1, 1, 2, 3], np.float32)},
        )
        for mode in ("nearest", "linear", "cubic")
        for way in ("half_pixel", "asymmetric", "align_corners")
    },
    "resize down": (
        'y = Resize<mode = "nearest">(x, , , s)',
        {"x": f(1, 2, 6, 8)},
        {"s": i(1, 2, 3, 4)},
    ),
    "resize floor": (
        'y = Resize<mode = "nearest", nearest_mode = "floor", '
        'coordinate_transformation_mode = "asymmetric">(x, , s)',
        IMAGE,
        {"s": np.array([1, 1, 2, 2], np.float32)},
    ),
    "depth to space": ("y = DepthToSpace<blocksize = 2>(x)", IMAGE, {}),
    "depth to space crd": (
        'y = DepthToSpace<blocksize = 2, mode = "CRD">(x)',
        {"x": f(1, 8, 3, 3)},
        {},
    ),
    "space to depth": ("y = SpaceToDepth<blocksize = 3>(x)", IMAGE, {}),
    "batch norm": (
        "y = BatchNormalization(x, s, b, m, v)",
        IMAGE,
        {"s": f(4), "b": f(4), "m": f(4), "v": positive(4)},
    ),
    "instance norm": ("y = InstanceNormalization(x, s, b)", IMAGE, {"s": f(4), "b": f(4)}),
}
MATRICES: dict[str, Case] = {
    "constant": ("y = MatMul(x, w)", FLAT, {"w": f(6, 3)}),
    "bias": ("a = MatMul(x, w) y = Add(a, b)", FLAT, {"w": f(6, 3), "b": f(3)}),
    "bias first": ("a = MatMul(x, w) c = Add(b, a) y = Relu(c)", FLAT, {"w": f(6, 3), "b": f(3)}),
    "residual": ("a = MatMul(x, w) y = Add(a, x)", FLAT, {"w": f(6, 6)}),
    "dynamic": ("y = MatMul(x, z)", {"x": f(2, 3, 4), "z": f(2, 4, 5)}, {}),
    "broadcast": ("y = MatMul(x, z)", {"x": f(2, 3, 4, 5), "z": f(3, 5, 2)}, {}),
    "constant batch": ("y = MatMul(x, w)", {"x": f(2, 3, 4)}, {"w": f(2, 4, 5)}),
    "constant left": ("y = MatMul(w, x)", {"x": f(2, 3, 4)}, {"w": f(5, 3)}),
    "vector": ("y = MatMul(x, z)", {"x": f(4), "z": f(4, 3)}, {}),
    "vector right": ("y = MatMul(x, z)", {"x": f(2, 3, 4), "z": f(4)}, {}),
    "vector constant": ("y = MatMul(x, w)", {"x": f(4)}, {"w": f(4, 3)}),
    "transposed key": (
        "k = Transpose<perm = [0, 2, 1]>(z) y = MatMul(x, k)",
        {"x": f(2, 3, 4), "z": f(2, 5, 4)},
        {},
    ),
    "gemm": ("y = Gemm(x, w, b)", {"x": f(2, 4)}, {"w": f(4, 3), "b": f(3)}),
    "gemm computed": (
        "y = Gemm<alpha = 0.5, beta = 2.0, transB = 1>(x, z, b)",
        {"x": f(2, 4), "z": f(3, 4), "b": f(3)},
        {"unfree": True},
    ),
    "gemm all": (
        "y = Gemm<alpha = 0.5, beta = 2.0, transA = 1, transB = 1>(x, w, b)",
        {"x": f(4, 2)},
        {"w": f(3, 4), "b": f(1, 3)},
    ),
    **{
        f"einsum {form}": (f'y = Einsum<equation = "{form}">(x, z)', {"x": x, "z": z}, {})
        for form, x, z in (
            ("ij,jk->ik", f(3, 4), f(4, 5)),
            ("bij,bkj->bik", f(2, 3, 4), f(2, 5, 4)),
            ("bhid,bhjd->bhij", f(2, 2, 3, 4), f(2, 2, 5, 4)),
            ("bsh,hnd->bsnd", f(2, 3, 4), f(4, 2, 5)),
            ("bihd,bjhd->bhij", f(2, 3, 2, 4), f(2, 5, 2, 4)),
        )
    },
}
REDUCTION: dict[str, Case] = {
    **{
        op: (f"y = {op}<keepdims = 0>(x, a)", {"x": positive(2, 4, 3, 5)}, {"a": i(1, -1)})
        for op in REDUCTIONS
    },
    "keep": ("y = ReduceMean(x, a)", IMAGE, {"a": i(2, 3)}),
    "all": ("y = ReduceSum<keepdims = 0>(x)", FLAT, {}),
    "argmax": ("y = ArgMax<axis = 1, keepdims = 0>(x)", IMAGE, {"outputs": "y:int64"}),
    "argmin": ("y = ArgMin<axis = -1>(x)", FLAT, {"outputs": "y:int64"}),
    "topk": (
        "y, n = TopK<axis = 1>(x, k)",
        FLAT,
        {"k": i(3), "outputs": "y n:int64"},
    ),
    "smallest": ("y, n = TopK<largest = 0>(x, k)", FLAT, {"k": i(2), "outputs": "y n:int64"}),
    "layer norm": ("y = LayerNormalization(x, s, b)", FLAT, {"s": f(6), "b": f(6)}),
    "layer norm 2": ("y = LayerNormalization<axis = 1>(x, s)", FLAT, {"s": f(5, 6)}),
    "l2": ("y = LpNormalization<axis = 1>(x)", FLAT, {}),
    "cumsum": ("y = CumSum<reverse = 1>(x, a)", FLAT, {"a": np.int64(1)}),
    "cumsum int": (
        "y = CumSum(x, a)",
        {"x": whole(0, 5, 2, 6)},
        {"a": np.int64(1), "outputs": "y:int64"},
    ),
}
SHAPES: dict[str, Case] = {
    "transpose": ("y = Transpose<perm = [0, 2, 3, 1]>(x)", IMAGE, {}),
    "transpose twice": (
        "a = Transpose<perm = [2, 0, 1]>(x) b = Relu(a) y = Transpose<perm = [1, 2, 0]>(b)",
        FLAT,
        {},
    ),
    "reshape": ("y = Reshape(x, s)", FLAT, {"s": i(2, -1)}),
    "reshape copy": ("y = Reshape(x, s)", FLAT, {"s": i(0, 0, 2, 3)}),
    "reshape held": ("a = Transpose<perm = [0, 2, 1]>(x) y = Reshape(a, s)", FLAT, {"s": i(0, -1)}),
    "reshape run time": (
        "n = Shape(x) b = Slice(n, zero, two) s = Concat<axis = 0>(b, rest) y = Reshape(x, s)",
        FLAT,
        {"zero": i(0), "two": i(2), "rest": i(3, 2)},
    ),
    "flatten": ("y = Flatten<axis = 2>(x)", {"x": f(2, 1, 6)}, {}),
    "squeeze": ("y = Squeeze(x, a)", {"x": f(2, 1, 3, 1)}, {"a": i(1, -1)}),
    "unsqueeze": ("y = Unsqueeze(x, a)", FLAT, {"a": i(0, -1)}),
    "shape": ("y = Shape(x)", FLAT, {"outputs": "y:int64"}),
    "shape part": ("y = Shape<start = 1, end = -1>(x)", FLAT, {"outputs": "y:int64"}),
    "size": ("y = Size(x)", FLAT, {"outputs": "y:int64"}),
    "concat": ("y = Concat<axis = 1>(x, z, w)", {"x": f(2, 3), "z": f(2, 2)}, {"w": f(2, 2)}),
    "split": ("y, z = Split<axis = 1>(x, s)", FLAT, {"s": i(2, 3), "outputs": "y z"}),
    "split even": ("y, z = Split<axis = 2, num_outputs = 2>(x)", FLAT, {"outputs": "y z"}),
    "slice": ("y = Slice(x, a, b, c)", FLAT, {"a": i(1, -3), "b": i(4, 2**63 - 1), "c": i(1, 2)}),
    "slice backwards": (
        "y = Slice(x, a, b, c, d)",
        FLAT,
        {"a": i(-1), "b": i(-(2**63)), "c": i(1), "d": i(-2)},
    ),
    "slice run time": (
        "y = Slice(x, a, b, c)",
        {"x": f(3, 8), "a": i(2), "b": i(5)},
        {"c": i(1), "unfree": True},
    ),
    "pad": ("y = Pad(x, p, v)", FLAT, {"p": i(0, 1, 2, 1, 0, 0), "v": np.float32(2)}),
    "pad zero": ("y = Pad(x, p)", IMAGE, {"p": i(0, 0, 1, 2, 0, 0, 1, 0)}),
    "pad axes": ("y = Pad(x, p, , a)", FLAT, {"p": i(1, 2), "a": i(-1)}),
    "crop": ("y = Pad(x, p)", FLAT, {"p": i(0, -1, 2, 0, 0, -2)}),
    "expand": ("y = Expand(x, s)", {"x": f(3, 1)}, {"s": i(2, 3, 4)}),
    "expand run time": (
        "n = Shape(z) y = Expand(x, n)",
        {"x": f(1, 6), "z": f(5, 1)},
        {},
    ),
    "tile": ("y = Tile(x, r)", FLAT, {"r": i(1, 2, 3)}),
    "gather": ("y = Gather<axis = 1>(x, z)", {"x": f(3, 7, 2), "z": whole(0, 7, 2, 4)}, {}),
    "gather one": ("y = Gather<axis = 1>(x, n)", FLAT, {"n": np.int64(-1)}),
    "gather first": ("y = Gather<axis = 1>(x, n)", FLAT, {"n": np.int64(0)}),
    "embedding": ("y = Gather(w, x)", {"x": whole(0, 9, 2, 5)}, {"w": f(9, 4)}),
    "gather nd": ("y = GatherND(x, z)", {"x": f(3, 4, 5), "z": whole(0, 3, 6, 2)}, {}),
    "gather elements": (
        "y = GatherElements<axis = 1>(x, z)",
        {"x": f(3, 4, 5), "z": whole(0, 4, 3, 2, 5)},
        {"unfree": True},
    ),
    "scatter nd": (
        "y = ScatterND(x, n, u)",
        {"x": f(5, 3), "u": f(2, 3)},
        {"n": np.array([[3], [1]])},
    ),
    "one hot": (
        "y = OneHot(x, d, v)",
        {"x": whole(0, 5, 2, 3)},
        {"d": np.int64(5), "v": np.array([0, 1], np.float32)},
    ),
    "range": (
        "n = Shape(x) k = Gather(n, one) r = Range(zero, k, one_) y = Cast<to = 1>(r)",
        FLAT,
        {"one": np.int64(1), "zero": np.int64(0), "one_": np.int64(1)},
    ),
    "constant of shape": (
        "n = Shape(x) y = ConstantOfShape<value = float[1] {2.5}>(n)",
        FLAT,
        {},
    ),
    "trilu": ("y = Trilu<upper = 0>(x)", {"x": f(4, 5)}, {}),
    "triu": ("y = Trilu(x, k)", {"x": f(2, 4, 5)}, {"k": np.int64(-1)}),
    "non zero": ("y = NonZero(x)", {"x": whole(0, 2, 3, 4)}, {"outputs": "y:int64"}),
}
PADS = {
    f"pad {mode}": (f'y = Pad<mode = "{mode}">(x, p)', IMAGE, {"p": i(0, 0, 2, 1, 0, 0, 1, 3)})
    for mode in ("reflect", "edge", "wrap")
}
GROUPS = {
    "elementwise": ELEMENTWISE,
    "convolution": CONVOLUTION,
    "matrices": MATRICES,
    "reduction": REDUCTION,
    "shapes": SHAPES,
    "pads": PADS,
}
CASES = {
    f"{group}: {name}": case for group, cases in GROUPS.items() for name, case in cases.items()
}


@pytest.mark.parametrize("name", CASES)
def test_operator_of_fixed_sizes_agrees(name: str) -> None:
    body, feeds, options = CASES[name]
    options = {key: value for key, value in options.items() if key != "unfree"}
    assert_agrees(network(body, feeds, **options), feeds)


@pytest.mark.parametrize("name", [name for name in CASES if "unfree" not in CASES[name][2]])
def test_operator_with_an_open_batch_agrees(name: str) -> None:
    body, feeds, options = CASES[name]
    assert_agrees(network(body, feeds, free="0", **options), feeds)


@pytest.mark.parametrize(
    ("rank", "shape", "free"),
    [(0, (1, 1), "0"), (1, (5, 1), "0"), (1, (1, 1, 3), "0"), (2, (5, 1, 2), "0")],
)
def test_squeeze_without_axes_drops_as_many_as_the_model_says(
    tmp_path: Path, rank: int, shape: tuple[int, ...], free: str
) -> None:
    feeds = {"x": f(*shape)}
    body = "s = Squeeze(x) n = Neg(s) y = Mul(n, two)"
    model = network(body, feeds, free=free, two=np.float32(2))
    model.graph[0].outputs[0].shape = model.graph[1].outputs[0].shape = None
    model.graph.outputs[0].shape = ir.Shape([None] * rank)
    file = tmp_path / "squeeze.tflite"
    file.write_bytes(lower(model))
    got = LiteRtEngine().open(file, SessionOptions()).run(feeds)
    assert error(got, expected(model, feeds)) == 0


def test_squeeze_without_axes_that_could_drop_either_of_two_is_refused() -> None:
    model = network("y = Squeeze(x)", {"x": f(1, 3, 2)}, free="01")
    model.graph.outputs[0].shape = ir.Shape([None, 2])
    with pytest.raises(UnsupportedOperatorError, match="which axes it drops"):
        lower(model)


def test_slice_to_the_end_of_one_axis_and_the_size_of_another_agrees() -> None:
    """As a ``.tflite`` file's mask comes: the end beyond all sizes, joined to one known later."""
    body = """n = Shape<start = 1>(x) e = Concat<axis = 0>(all, n) t = Slice(table, zeros, e, axes)
              a = Add(x, t) k = Shape<end = 1>(a) s = Concat<axis = 0>(k, rest) y = Reshape(a, s)"""
    constants = {"table": f(1, 32), "all": i(2**31 - 1), "zeros": i(0, 0), "axes": i(0, 1)}
    feeds, longer = {"x": f(3, 7)}, {"x": f(3, 20)}
    model = network(body, feeds, free="01", rest=i(-1, 1), **constants)
    assert_agrees(model, feeds, longer)
