"""Static int8 as TensorRT wants it: where the pairs stand, and what they hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from converters.calibration.collect import collect
from converters.passes.base import Context
from converters.passes.float16 import Float16
from converters.passes.smooth_quant import SmoothQuant
from converters.passes.static_qdq import StaticQdq
from tests.passes.models import graph, normal, ops
from tests.passes.networks import (
    calibrated,
    convolutional,
    cosine,
    inferred,
    samples,
    transformed,
    with_statistics,
)
from tests.tensorrt.networks import IMAGE, TOKENS, depthwise, residual, transformer, upsampling

OPTIONS = {"activation": "int8", "symmetric_activation": True, "float_bias": True}
NETWORKS: list[tuple[Callable[[], ir.Model], tuple[int, ...], float]] = [
    (convolutional, IMAGE, 0.999),
    (residual, IMAGE, 0.999),
    (depthwise, IMAGE, 0.999),
    (upsampling, IMAGE, 0.999),
    (transformer, TOKENS, 0.93),  # its outliers are what smoothing is for
]


def quantized(build: Callable[[], ir.Model], shape: tuple[int, ...]) -> ir.Model:
    model, statistics = calibrated(build, shape)
    return transformed(with_statistics(StaticQdq, statistics, OPTIONS), model)


def named(model: ir.Model, output: str) -> ir.Node:
    return next(node for node in model.graph if node.outputs[0].name == output)


def read_from(node: ir.Node, index: int) -> tuple[str | None, str | None]:
    """Operator behind an input, and what it dequantizes: the value's name if that is a pair."""
    producer = node.inputs[index].producer()
    if producer is None or producer.op_type != "DequantizeLinear":
        return (producer.op_type if producer else None), None
    pair = producer.inputs[0].producer()
    return "DequantizeLinear", pair.inputs[0].name if pair else "weight"


@pytest.mark.parametrize(("build", "shape", "least"), NETWORKS)
def test_pairs_are_symmetric_s8_with_zero_points_of_zero_in_standard_operators(
    build: Callable[[], ir.Model], shape: tuple[int, ...], least: float
) -> None:
    after = quantized(build, shape)
    pairs = [node for node in after.graph if node.op_type.endswith("eLinear")]
    assert pairs
    for node in pairs:
        if len(node.inputs) > 2:
            zero_point = node.inputs[2].const_value
            assert zero_point.dtype == ir.DataType.INT8
            assert not zero_point.numpy().any()
        elif node.op_type == "QuantizeLinear":
            pytest.fail(f"{node.name} would quantize to uint8")
    assert {node.domain for node in after.graph} == {""}
    for node in after.graph:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.inputs) > 2:
            assert read_from(node, 2) == (None, None)  # a bias is a float constant
    assert cosine(build(), after, samples(shape, 6, seed=3)) > least


@pytest.mark.parametrize(("build", "shape", "least"), NETWORKS)
def test_only_inputs_of_layers_and_of_residual_additions_are_quantized(
    build: Callable[[], ir.Model], shape: tuple[int, ...], least: float
) -> None:
    after = quantized(build, shape)
    for node in after.graph:
        if node.op_type == "DequantizeLinear":
            readers = {user.op_type for user in node.outputs[0].consumers()}
            assert readers <= {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add"}
    assert all(not value.producer().op_type.endswith("eLinear") for value in after.graph.outputs)


def test_weights_have_a_scale_per_output_channel() -> None:
    after = quantized(upsampling, IMAGE)
    axes = {
        node.op_type: node.inputs[1].producer().attributes["axis"].value
        for node in after.graph
        if node.op_type in ("Conv", "ConvTranspose")
    }
    assert axes == {"Conv": 0, "ConvTranspose": 1}
    scales = named(after, "t").inputs[1].producer().inputs[1].const_value
    assert scales.shape.numpy() == (16,)


def test_of_a_residual_addition_the_operand_beside_the_convolution_is_quantized() -> None:
    after = quantized(residual, IMAGE)
    identity = named(after, "s1")
    assert read_from(identity, 0) == ("Conv", None)
    assert read_from(identity, 1) == ("DequantizeLinear", "r0")
    # The same pair feeds the block's first layer: one int8 tensor for both.
    assert identity.inputs[1] is named(after, "a1").inputs[0]


def test_where_both_operands_are_convolutions_the_shortcut_is_quantized() -> None:
    after = quantized(residual, IMAGE)
    projection = named(after, "s2")
    assert read_from(projection, 0) == ("DequantizeLinear", "short")
    assert read_from(projection, 1) == ("Conv", None)


def test_a_convolution_that_others_read_too_does_not_fuse_and_is_left_alone() -> None:
    model = inferred(
        graph(
            "(float[1,4,8,8] x) => (float[1,4,8,8] y, float[1,4,8,8] z)",
            "c = Conv (x, w) z = Neg (c) y = Add (c, x)",
            w=normal(4, 4, 1, 1),
        )
    )
    shape = (1, 4, 8, 8)
    after = transformed(with_statistics(StaticQdq, collect(model, samples(shape)), OPTIONS), model)
    assert [value.name for value in named(after, "y").inputs] == ["c", "x"]


def test_no_pair_stands_between_an_encoders_layers_and_its_norms_or_softmax() -> None:
    after = quantized(transformer, TOKENS)
    assert ops(after)["QuantizeLinear"] == 4  # of the norms, the context and the GELU
    for node in after.graph:
        if node.op_type in ("LayerNormalization", "Softmax", "Add", "Erf"):
            assert all(
                value.producer() is None or value.producer().op_type != "DequantizeLinear"
                for value in node.inputs
            )


def scale_of(model: ir.Model, layer: str) -> float:
    """The scale of a layer's input."""
    return float(named(model, layer).inputs[0].producer().inputs[1].const_value.numpy())


def test_what_pooling_moves_keeps_its_scale_where_both_are_quantized() -> None:
    after = quantized(upsampling, IMAGE)
    assert scale_of(after, "z") == scale_of(after, "t")  # p = MaxPool (r), and t reads r


def test_what_is_concatenated_takes_the_scale_of_the_whole() -> None:
    after = quantized(upsampling, IMAGE)
    assert scale_of(after, "q") == scale_of(after, "y")  # joined = Concat (u, v), and q reads u
    _, statistics = calibrated(upsampling, IMAGE)
    assert statistics["u"].absmax / 127 < 0.99 * scale_of(after, "q")  # not its own


def test_migrated_outliers_are_seen_by_the_static_scales_after_them() -> None:
    model, statistics = calibrated(transformer, TOKENS)
    plain = transformed(with_statistics(StaticQdq, statistics, OPTIONS), model)
    context = Context(statistics=statistics)
    smoothed = ir.from_proto(ir.to_proto(model))
    SmoothQuant(SmoothQuant.options_type(), context)(smoothed)
    after = transformed(StaticQdq(StaticQdq.options_type(**OPTIONS), context), smoothed)
    assert ops(after)["QuantizeLinear"] == ops(plain)["QuantizeLinear"]
    data = samples(TOKENS, 6, seed=3)
    lost, kept = 1 - cosine(model, plain, data), 1 - cosine(model, after, data)
    assert kept < lost / 3
    assert not any(name.endswith("_smooth") for name in statistics.tensors)  # others share them


@pytest.mark.parametrize(("build", "shape", "least"), NETWORKS)
def test_halves_keep_float32_at_the_borders(
    build: Callable[[], ir.Model], shape: tuple[int, ...], least: float
) -> None:
    model = build()
    after = transformed(Float16(Float16.options_type(), Context()), model)
    floats = [value for value in after.graph.initializers.values() if value.const_value.size > 64]
    assert {value.dtype for value in floats} == {ir.DataType.FLOAT16}
    assert cosine(model, after, samples(shape, 4, seed=3)) > 0.99999


def test_a_value_that_overflows_halves_is_computed_in_float32() -> None:
    model = inferred(
        graph(
            "(float[4,8] x) => (float[4,8] y)",
            "a = MatMul (x, w) s = Mul (a, a) m = ReduceMean <axes = [1]> (s) y = Div (a, m)",
            w=np.eye(8, dtype=np.float32),
        )
    )
    after = transformed(Float16(Float16.options_type(), Context()), model)
    mean = next(node for node in after.graph if node.op_type == "ReduceMean")
    assert mean.outputs[0].dtype == ir.DataType.FLOAT
