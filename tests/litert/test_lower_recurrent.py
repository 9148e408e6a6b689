"""Recurrent layers and control flow: unrolled and looped, with states as inputs and outputs."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from converters.litert import lower
from converters.passes.dynamic_int8 import DynamicInt8, DynamicInt8Options
from tests.litert.agreement import assert_agrees, computed, expected, network

pytestmark = pytest.mark.converts

R = np.random.default_rng(11)
INPUTS, HIDDEN = 5, 4
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def f(*shape: int) -> NDArray[np.float32]:
    return R.standard_normal(shape).astype(np.float32)


def recurrent(
    kind: str, length: int, attributes: str = "", *, free: str = ""
) -> tuple[ir.Model, dict[str, NDArray[np.float32]]]:
    """A layer with its states as inputs and outputs."""
    ways = 2 if "bidirectional" in attributes else 1
    gates = GATES[kind] * HIDDEN
    feeds = {"x": f(length, 2, INPUTS), "h": f(ways, 2, HIDDEN)}
    memory = kind == "LSTM"
    if memory:
        feeds["c"] = f(ways, 2, HIDDEN)
    model = network(
        f"y, hn{', cn' if memory else ''} = {kind}<hidden_size = {HIDDEN}{attributes}>"
        f"(x, w, r, b, , h{', c' if memory else ''})",
        feeds,
        outputs="y hn cn" if memory else "y hn",
        free=free,
        w=f(ways, gates, INPUTS),
        r=f(ways, gates, HIDDEN),
        b=f(ways, 2 * gates),
    )
    return model, feeds


@pytest.mark.parametrize("length", [1, 3, 40], ids=lambda n: f"{n} steps")
@pytest.mark.parametrize("way", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_recurrent_layer_agrees(kind: str, way: str, length: int) -> None:
    model, feeds = recurrent(kind, length, f', direction = "{way}"')
    assert_agrees(model, feeds)


def test_gru_that_resets_after_the_product_agrees() -> None:
    model, feeds = recurrent("GRU", 3, ", linear_before_reset = 1")
    assert_agrees(model, feeds)


@pytest.mark.parametrize("kind", GATES)
def test_recurrent_layer_of_open_length_runs_at_every_length(kind: str) -> None:
    model, feeds = recurrent(kind, 6, free="0")
    longer = {**feeds, "x": f(23, 2, INPUTS)}
    model_inputs = {value.name: value for value in model.graph.inputs}
    model_inputs["h"].shape = ir.Shape([1, 2, HIDDEN])
    if "c" in model_inputs:
        model_inputs["c"].shape = ir.Shape([1, 2, HIDDEN])
    assert_agrees(model, feeds, longer)


def test_lstm_without_states_starts_from_zero() -> None:
    feeds = {"x": f(3, 2, INPUTS)}
    model = network(
        f"y, hn = LSTM<hidden_size = {HIDDEN}>(x, w, r)",
        feeds,
        outputs="y hn",
        free="1",
        w=f(1, 4 * HIDDEN, INPUTS),
        r=f(1, 4 * HIDDEN, HIDDEN),
    )
    assert_agrees(model, feeds, {"x": f(3, 5, INPUTS)})


@pytest.mark.parametrize("length", [3, 40], ids=lambda n: f"{n} steps")
@pytest.mark.parametrize("way", ["forward", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_int8_weights_stay_int8_in_recurrent_layers(kind: str, way: str, length: int) -> None:
    model, feeds = recurrent(kind, length, f', direction = "{way}"')
    codes = DynamicInt8(DynamicInt8Options(recurrent=True, min_weight_elements=1))
    quantized = codes(model.clone()).model
    file = lower(quantized)
    assert weight_types(file) == {"INT8"}
    reference = expected(model, feeds)
    for delegate in (True, False):
        found = computed(file, feeds, delegate=delegate)
        for name, array in reference.items():
            assert np.abs(found[name] - array).max() < 0.1 * np.abs(array).max()


def weight_types(file: bytes) -> set[str]:
    """Of all fully connected layers, those of subgraphs too."""
    model = schema.ModelT.InitFromPackedBuf(file)
    kinds = [each.builtinCode for each in model.operatorCodes]
    names = {value: key for key, value in vars(schema.TensorType).items()}
    return {
        names[graph.tensors[operator.inputs[1]].type]
        for graph in model.subgraphs
        for operator in graph.operators
        if kinds[operator.opcodeIndex] == schema.BuiltinOperator.FULLY_CONNECTED
    }


def parsed(text: str, **constants: object) -> ir.Model:
    proto = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 20]> {text}')
    for name, value in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return ir.from_proto(proto)


IF = """main (bool flag, float[N, 4] x) => (float[N, 3] y) {
    s = Relu (x)
    y = If (flag) <
        then_branch = then_g () => (float[N, 3] a) { a = MatMul (s, w) },
        else_branch = else_g () => (float[N, 3] b) { t = Neg (x) b = MatMul (t, v) }
    >
}"""


def test_if_takes_the_branch_that_is_asked_for() -> None:
    model = parsed(IF, w=f(4, 3), v=f(4, 3))
    samples = [{"flag": np.array(flag), "x": f(n, 4)} for flag in (True, False) for n in (1, 3)]
    assert_agrees(model, *samples)


LOOP = """main (float[2, 4] x, int64 n) => (float[2, 4] last, float[K, 2, 4] all) {
    go = Constant <value = bool {1}> ()
    last, all = Loop (n, go, x) <body = step (int64 i, bool more, float[2, 4] h)
        => (bool again, float[2, 4] next, float[2, 4] seen) {
        again = Identity (more)
        p = MatMul (h, w)
        q = Tanh (p)
        next = Add (q, x)
        seen = Identity (next)
    }>
}"""


def test_loop_carries_and_collects() -> None:
    model = parsed(LOOP, w=f(4, 4) * 0.3)
    samples = [{"x": f(2, 4), "n": np.array(n)} for n in (1, 5)]
    assert_agrees(model, *samples)


UNTIL = """main (float[4] x) => (float[4] last) {
    last = Loop (, , x) <body = step (int64 i, bool more, float[4] h)
        => (bool again, float[4] next) {
        next = Mul (h, two)
        top = ReduceMax <keepdims = 0> (next)
        again = Less (top, limit)
    }>
}"""


def test_loop_runs_until_its_condition_fails() -> None:
    model = parsed(UNTIL, two=np.float32(2), limit=np.float32(100))
    assert_agrees(model, {"x": np.array([1, 3, 0.5, 2], np.float32)})


SCAN = """main (float[2, 4] h0, float[T, 2, 4] x) => (float[2, 4] hn, float[T, 2, 4] y) {
    hn, y = Scan <num_scan_inputs = 1, body = step (float[2, 4] h, float[2, 4] xt)
        => (float[2, 4] next, float[2, 4] seen) {
        p = MatMul (h, w)
        q = Add (p, xt)
        next = Tanh (q)
        seen = Identity (next)
    }> (h0, x)
}"""


def test_scan_runs_at_every_length() -> None:
    model = parsed(SCAN, w=f(4, 4))
    assert_agrees(model, *({"h0": f(2, 4), "x": f(length, 2, 4)} for length in (1, 9)))
