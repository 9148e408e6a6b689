"""Static int8: integer kernels where ONNX Runtime has them, and float where quantizing hurts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from converters.calibration.collect import collect
from converters.calibration.statistics import Statistics
from converters.materialize import save
from converters.passes.base import Context
from converters.passes.static_qdq import StaticQdq, StaticQdqOptions
from tests.passes.models import Array, build, graph, normal, ops, run, untouched, weight_bytes
from tests.passes.networks import (
    HIDDEN,
    calibrated,
    convolutional,
    cosine,
    encoder,
    inferred,
    samples,
    transformed,
    with_statistics,
)

IMAGE = (1, 3, 16, 16)
TOKENS = (1, 7, HIDDEN)


def quantized(model: ir.Model, statistics: Statistics, **options: Any) -> ir.Model:
    return transformed(with_statistics(StaticQdq, statistics, options), model)


def fused(model: ir.Model, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime executes after its own optimizations."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(save(model, folder), options, providers=["CPUExecutionProvider"])
    return ops(ir.load(folder / "optimized.onnx"))


@pytest.mark.parametrize("activation", ["uint8", "int8"])
@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_network_agrees_whatever_the_type_and_the_method(activation: str, method: str) -> None:
    model, statistics = calibrated(convolutional, IMAGE)
    after = quantized(model, statistics, activation=activation, method=method)
    assert weight_bytes(after) < 0.4 * weight_bytes(model)
    assert cosine(model, after, samples(IMAGE, 8, seed=3)) > 0.99


def test_whole_network_runs_on_integer_kernels(tmp_path: Path) -> None:
    model, statistics = calibrated(convolutional, IMAGE)
    found = fused(quantized(model, statistics), tmp_path)
    assert found["QLinearConv"] == 4
    assert found["QLinearAdd"] == found["QLinearMul"] == found["QLinearSigmoid"] == 1
    assert found["QLinearGlobalAveragePool"] == found["QGemm"] == 1
    assert not {"Conv", "Gemm", "Add", "Mul", "Relu", "Clip"} & set(found)
    # In at the input, out at the result: the classifier gives float itself.
    assert found["QuantizeLinear"] == 1
    assert found["DequantizeLinear"] == 0


def test_dense_layers_give_float_and_residuals_read_float(tmp_path: Path) -> None:
    model, statistics = calibrated(encoder, TOKENS)
    after = quantized(model, statistics)
    found = fused(after, tmp_path)
    assert found["MatMulIntegerToFloat"] == 6
    # One quantization per activation that layers share: two norms, attention and GELU.
    assert found["QuantizeLinear"] == 4
    assert all(
        value is None or producer_op(value) != "DequantizeLinear"
        for node in after.graph
        if node.op_type in ("Sum", "Add")
        for value in node.inputs
    )
    assert cosine(model, after, samples(TOKENS, 4, seed=5)) > 0.97


def producer_op(value: ir.Value) -> str | None:
    node = value.producer()
    return node.op_type if node is not None else None


def test_tensorrt_form_is_symmetric_and_quantizes_inputs_only() -> None:
    model, statistics = calibrated(convolutional, IMAGE)
    after = quantized(
        model, statistics, activation="int8", symmetric_activation=True, float_bias=True
    )
    pairs = [node for node in after.graph if node.op_type.endswith("eLinear")]
    assert pairs
    for point in [node.inputs[2] for node in pairs if len(node.inputs) > 2]:
        assert point.const_value.dtype == ir.DataType.INT8
        assert not point.const_value.numpy().any()
    assert ops(after)["Relu"] == 2  # quantization with zero in the middle is no clamp
    add = next(node for node in after.graph if node.op_type == "Add")
    assert [producer_op(value) for value in add.inputs if value] == ["Conv", "DequantizeLinear"]
    assert all(node.domain == "" for node in after.graph)
    assert cosine(model, after, samples(IMAGE, 8, seed=3)) > 0.99


def test_outputs_and_values_used_beside_keep_their_meaning() -> None:
    body = "c = Conv (x, w) y = Relu (c) z = Neg (y) d = Conv (x, v) e = Relu (d) q = Add (d, e)"
    model = inferred(
        graph(
            "(float[1,2,6,6] x) => (float[1,4,4,4] y, float[1,4,4,4] z, float[1,4,4,4] q)",
            body,
            w=normal(4, 2, 3, 3),
            v=normal(4, 2, 3, 3, seed=1),
        )
    )
    data = samples((1, 2, 6, 6))
    after = quantized(model, collect(model, data))
    feeds = data.samples[0][0]
    expected, actual = run(model, feeds), run(after, feeds)
    for name, array in expected.items():
        np.testing.assert_allclose(actual[name], array, atol=0.03 * np.ptp(array), err_msg=name)


def test_dead_channels_zero_inputs_and_large_biases_keep_their_values() -> None:
    weight, bias = normal(4, 2, 3, 3), np.array([0, 3, 0.5, 300], np.float32)
    weight[1] = 0  # a dead channel that still has a bias
    weight[2] *= 1e-9
    model = graph(
        "(float[1,2,6,6] x, float[1,2,6,6] z) => (float[1,4,4,4] y, float[1,4,4,4] q)",
        "y = Conv (x, w, b) q = Conv (z, w, b)",
        w=weight,
        b=bias,
    )
    zero = np.zeros((1, 2, 6, 6), np.float32)
    data = samples((1, 2, 6, 6), 4)
    calls = tuple(({**call, "z": zero},) for (call,) in data.samples)
    data = type(data)(calls, None, data.origin, data.digest)
    after = quantized(model, collect(model, data), method="minmax")
    expected, actual = run(model, calls[0][0]), run(after, calls[0][0])
    step = 310 / 255  # one scale per activation: the large bias sets it
    for name in expected:
        np.testing.assert_allclose(actual[name], expected[name], atol=step)


def test_layers_that_share_a_weight_share_its_codes() -> None:
    model = inferred(
        graph(
            "(float[2,64] x) => (float[2,64] y)",
            "a = MatMul (x, w) n = Neg (a) y = MatMul (n, w)",
            w=normal(64, 64),
        )
    )
    after = quantized(model, collect(model, samples((2, 64))))
    layers = [node for node in after.graph if node.op_type == "MatMul"]
    assert layers[0].inputs[1] is layers[1].inputs[1]
    assert "w" not in after.graph.initializers


def test_what_only_moves_values_keeps_their_scale(tmp_path: Path) -> None:
    body = """
        c = Conv <pads = [1,1,1,1]> (x, w, b) s, t = Split <axis = 1> (c)
        d = Conv <pads = [1,1,1,1], group = 2> (t, u, k) y = Concat <axis = 1> (s, d)
    """
    model = inferred(
        graph(
            "(float[1,4,6,6] x) => (float[1,4,6,6] y)",
            body,
            b=np.array([9, 1, 0.1, 0.1], np.float32),  # the halves of c differ in range
            k=normal(2, seed=4),
            u=normal(2, 1, 3, 3, seed=5),
            w=normal(4, 4, 3, 3, scale=0.2),
        )
    )
    data = samples((1, 4, 6, 6))
    after = quantized(model, collect(model, data))
    assert fused(after, tmp_path)["QLinearConv"] == 2
    assert cosine(model, after, samples((1, 4, 6, 6), 4, seed=3)) > 0.999


CLAMPED = {
    "relu": "y = Relu (c)",
    "clip": "y = Clip (c, low, high)",
    "clip below": "y = Clip (c, low)",
    "clip above": "y = Clip (c, , high)",
    "maximum": "y = Max (low, c)",
    "minimum": "y = Min (c, high)",
    "hard swish": "y = HardSwish (c)",
    "hard swish, spelt out": "a = Add (c, three) r = Clip (a, zero, six)"
    "m = Mul (c, r) y = Div (m, six)",
    "gate": "s = HardSigmoid <alpha = 0.25, beta = 0.4> (c) y = Mul (s, c)",
    "multiple": "m = Mul (half, c) y = Add (m, c)",
    "negative shift": "a = Add (minus, c) y = Relu (a)",
    "bias apart": "a = Add (c, channels) y = Relu (a)",
}


@pytest.mark.parametrize("case", CLAMPED)
def test_clamps_and_gates_become_integer_arithmetic(case: str, tmp_path: Path) -> None:
    numbers = {"low": -0.5, "high": 0.8, "three": 3, "zero": 0, "six": 6, "half": 0.5, "minus": -1}
    model = inferred(
        graph(
            "(float[1,3,8,8] x) => (float[1,4,6,6] y)",
            f"c = Conv (x, w) {CLAMPED[case]}",
            w=normal(4, 3, 3, 3, scale=0.4),
            channels=normal(1, 4, 1, 1, seed=3),
            **{name: np.array(number, np.float32) for name, number in numbers.items()},
        )
    )
    data = samples((1, 3, 8, 8))
    after = quantized(model, collect(model, data))
    assert cosine(model, after, data) > 0.998
    kernels = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearAdd", "QLinearMul"}
    assert set(fused(after, tmp_path)) <= kernels | {"Transpose"}


def test_a_constant_that_nodes_share_stands_before_all_of_them() -> None:
    body = "c = Conv (x, w) a = Add (c, k) b = Add (a, k) y = Relu (b)"
    model = graph(
        "(float[1,3,8,8] x) => (float[1,4,6,6] y)",
        body,
        w=normal(4, 3, 3, 3, scale=0.4),
        k=np.array(0.5, np.float32),
    )
    model = inferred(model)
    number = model.graph.initializers["k"]
    for node in reversed(list(model.graph)):  # the later user becomes the first in the list of uses
        if node.op_type == "Add":
            node.replace_input_with(1, None)
            node.replace_input_with(1, number)
    data = samples((1, 3, 8, 8))
    assert cosine(model, quantized(model, collect(model, data)), data) > 0.999


def test_the_same_model_and_data_give_the_same_bytes() -> None:
    def once() -> bytes:
        model = convolutional()
        after = quantized(model, collect(model, samples(IMAGE)), method="entropy")
        return ir.to_proto(after).SerializeToString(deterministic=True)

    assert once() == once()


def test_excluded_and_unlisted_layers_stay_float() -> None:
    model, statistics = calibrated(convolutional, IMAGE)
    context = Context(statistics=statistics)
    model = model.clone()
    for node in model.graph:
        node.name = f"{node.outputs[0].name}_node"
    pass_ = StaticQdq(StaticQdqOptions(op_types=("Conv",), exclude=("c2_node",)), context)
    after = transformed(pass_, model)
    assert {node.reason for node in context.unquantized} == {
        "the recipe quantizes Conv only",
        "excluded by the recipe",
    }
    floats = [n for n in after.graph if n.name == "c2_node" or n.op_type == "Gemm"]
    assert [producer_op(node.inputs[1]) for node in floats if node.inputs[1]] == [None, None]
    assert cosine(model, after, samples(IMAGE, 4, seed=3)) > 0.99


UNTOUCHED: dict[str, tuple[str, str, int]] = {
    "not calibrated": ("(float[1,4] x) => (float[1,4] y)", "y = MatMul (x, w)", 17),
    "computed weight": ("(float[1,4] x, float[4,4] z) => (float[1,4] y)", "y = MatMul (x, z)", 17),
    "old opset": ("(float[1,4] seen) => (float[1,4] y)", "y = MatMul (seen, w)", 12),
}


@pytest.mark.parametrize("case", UNTOUCHED)
def test_what_cannot_be_quantized_is_left_alone(case: str) -> None:
    signature, body, opset = UNTOUCHED[case]
    model = graph(signature, body, opset=opset, w=normal(4, 4))
    _, statistics = calibrated(encoder, TOKENS)
    seen = Statistics({"seen": statistics["p"]})
    pass_ = with_statistics(StaticQdq, seen)
    assert untouched(pass_, model)
    assert pass_.context.unquantized or pass_.context.notes


def test_layers_in_subgraphs_stay_float() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    main (bool c, float[2,16] x) => (float[2,16] y) {
        h = MatMul (x, w)
        y = If (c) <
            then_branch = a () => (float[2,16] t) { t = MatMul (h, w) },
            else_branch = b () => (float[2,16] e) { e = Neg (h) }
        >
    }"""
    model = inferred(build(text, w=normal(16, 16)))
    calls: tuple[tuple[dict[str, Array]], ...] = tuple(
        ({"c": np.array(True), "x": normal(2, 16, seed=i)},) for i in range(4)
    )
    data = samples((2, 16))
    after = quantized(model, collect(model, type(data)(calls, None, "user", data.digest)))
    assert ops(after)["MatMul"] == 2
    assert ops(after)["QuantizeLinear"] == 1
    assert "w" in after.graph.initializers
    np.testing.assert_allclose(run(after, calls[0][0])["y"], run(model, calls[0][0])["y"], atol=0.3)


def test_only_what_is_quantized_counts_as_used() -> None:
    model, statistics = calibrated(encoder, TOKENS)
    fresh = Statistics(statistics.tensors)
    transformed(with_statistics(StaticQdq, fresh), model)
    assert fresh.used == {"p", "context", "n", "f"}


def pooled() -> ir.Model:
    """A pool keeps the scale of its input, and the next layer reads what it moved."""
    body = """
        c = Conv <pads = [1,1,1,1]> (x, w) r = Relu (c)
        p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (r) y = Conv (p, v)
    """
    weights = {"w": normal(4, 3, 3, 3, scale=0.3), "v": normal(4, 4, 3, 3, seed=2, scale=0.3)}
    return inferred(graph("(float[1,3,16,16] x) => (float[1,4,6,6] y)", body, **weights))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    ("network", "shape"), [(pooled, IMAGE), (convolutional, IMAGE), (encoder, TOKENS)]
)
def test_used_statistics_suffice_to_quantize_again(network, shape, symmetric) -> None:
    """What a base bundle keeps gives unchanged layers unchanged bytes."""
    model, statistics = calibrated(network, shape)
    fresh = Statistics(statistics.tensors)
    first = quantized(model, fresh, symmetric_activation=symmetric)
    again = quantized(model, fresh.used_only(), symmetric_activation=symmetric)
    assert ir.to_proto(again).SerializeToString() == ir.to_proto(first).SerializeToString()


def test_dense_layers_give_integers_to_integers_and_floats_to_the_caller() -> None:
    """As LiteRT needs them: bias inside, and no range on what calibration may not have seen."""
    weights = {"v": normal(32, 16, scale=0.2), "w": normal(16, 8, seed=1, scale=0.2)}
    body = "a = MatMul (x, v) b = Add (a, bias) c = Relu (b) d = MatMul (c, w) y = Identity (d)"
    model = graph("(float[N,32] x) => (float[N,8] y)", body, bias=normal(16, seed=2), **weights)
    model = inferred(model)
    data = samples((4, 32), 8, seed=4)
    statistics = collect(model, data)
    after = quantized(model, statistics, activation="int8", dense_outputs=True)
    assert ops(after)["Gemm"] == 1 and ops(after)["Add"] == ops(after)["Relu"] == 0
    [gemm] = [node for node in after.graph if node.op_type == "Gemm"]
    [reader] = gemm.outputs[0].consumers()
    assert reader.op_type == "QuantizeLinear"
    [product] = [node for node in after.graph if node.op_type == "MatMul"]
    assert not {use.op_type for use in product.outputs[0].consumers()} & {"QuantizeLinear"}
    assert cosine(model, after, data) > 0.999
