"""Quantized graphs: the same codes and scales, in integer or hybrid kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from converters.calibration.collect import collect
from converters.litert import lower
from converters.passes.base import Context
from converters.passes.dynamic_int8 import DynamicInt8
from converters.passes.quantize_embedding import QuantizeEmbedding, QuantizeEmbeddingOptions
from converters.passes.static_qdq import StaticQdq
from tests.litert.agreement import assert_agrees, computed, error, expected, network, operators
from tests.passes.networks import (
    calibrated,
    convolutional,
    encoder,
    samples,
    transformed,
    with_statistics,
)

pytestmark = pytest.mark.converts

R = np.random.default_rng(5)
IMAGE = (1, 3, 16, 16)


def f(*shape: int) -> NDArray[np.float32]:
    return R.standard_normal(shape).astype(np.float32)


def tensors(file: bytes, dtype: int) -> list[Any]:
    model = schema.ModelT.InitFromPackedBuf(file, 0)
    return [tensor for tensor in model.subgraphs[0].tensors if tensor.type == dtype]


@pytest.mark.parametrize("activation", ["uint8", "int8"])
def test_static_network_runs_on_integer_kernels(activation: str) -> None:
    model, statistics = calibrated(convolutional, IMAGE)
    after = transformed(with_statistics(StaticQdq, statistics, {"activation": activation}), model)
    file = lower(after)
    feeds = {"x": f(*IMAGE)}
    got = computed(file, feeds, delegate=True)
    assert error(got, expected(after, feeds)) < 0.03
    assert error(got, expected(model, feeds)) < 0.1
    found = operators(file)
    assert found["QUANTIZE"] <= 3  # the input, and a sigmoid between its fixed scale and ours
    assert found["DEQUANTIZE"] == 1  # the classifier's input
    assert {tensor.type for tensor in _convolution_weights(file)} == {schema.TensorType.INT8}


def _convolution_weights(file: bytes) -> list[Any]:
    return [tensor for tensor in tensors(file, schema.TensorType.INT8) if len(_scales(tensor)) > 1]


def _scales(tensor: Any) -> list[float]:
    quantization = tensor.quantization
    return [] if quantization is None or quantization.scale is None else list(quantization.scale)


def test_static_weights_have_a_scale_per_channel_and_zero_in_the_middle() -> None:
    model, statistics = calibrated(convolutional, IMAGE)
    file = lower(transformed(with_statistics(StaticQdq, statistics), model))
    weights = _convolution_weights(file)
    assert len(weights) == 5
    assert all(not np.any(tensor.quantization.zeroPoint) for tensor in weights)


def test_both_types_of_activations_give_the_same_bytes_of_weights() -> None:
    model, statistics = calibrated(convolutional, IMAGE)
    files = [
        lower(transformed(with_statistics(StaticQdq, statistics, {"activation": kind}), model))
        for kind in ("uint8", "int8")
    ]
    assert operators(files[0]) == operators(files[1])


@pytest.mark.parametrize("batch", [1, 3])
def test_dynamic_int8_is_a_fully_connected_layer_with_int8_weights(batch: int) -> None:
    model = encoder()
    after = transformed(DynamicInt8(context=Context()), model)
    file = lower(after)
    feeds = {"x": f(batch, 9, 64)}
    got = computed(file, feeds, delegate=True)
    assert error(got, expected(model, feeds)) < 0.15
    assert operators(file)["FULLY_CONNECTED"] == 6
    assert len(_convolution_weights(file)) == 6
    assert operators(file)["QUANTIZE"] == 0


def test_weights_can_be_quantized_while_lowering() -> None:
    model = encoder()
    feeds = {"x": f(2, 9, 64)}
    file = lower(model, weights="int8")
    assert error(computed(file, feeds, delegate=True), expected(model, feeds)) < 0.15
    assert len(file) < 0.35 * len(lower(model))


def test_weights_can_be_halved_while_lowering() -> None:
    model = encoder()
    feeds = {"x": f(2, 9, 64)}
    file = assert_agrees(model, feeds, tolerance=2e-3, weights="float16")
    assert len(file) < 0.6 * len(lower(model))


def test_rows_of_a_table_stay_int8() -> None:
    table = f(4096, 64)
    feeds = {"x": R.integers(0, 4096, (2, 5))}
    model = network("y = Gather(table, x)", feeds, free="01", table=table)
    options = QuantizeEmbeddingOptions()
    after = transformed(QuantizeEmbedding(options, Context()), model)
    file = assert_agrees(after, feeds)
    assert len(file) < 0.3 * table.nbytes


def test_operator_without_an_integer_kernel_computes_with_real_numbers() -> None:
    body = "a = Conv(x, w, b) e = Softsign(a) y = Conv(e, v, c)"
    feeds = {"x": f(1, 3, 16, 16)}
    constants: dict[str, Any] = {
        "w": f(8, 3, 3, 3) * 0.2,
        "b": f(8),
        "v": f(4, 8, 3, 3) * 0.2,
        "c": f(4),
    }
    model = network(body, feeds, **constants)
    statistics = collect(model, samples(IMAGE))
    after = transformed(with_statistics(StaticQdq, statistics), model)
    got = computed(lower(after), feeds, delegate=True)
    assert error(got, expected(after, feeds)) < 0.03


QUANTIZED_AT_RUN_TIME = """
    q, s, z = DynamicQuantizeLinear(x) m = MatMulInteger(q, w, z) c = Cast<to = 1>(m)
    k = Mul(s, scale) y = Mul(c, k)
"""


def test_graph_quantized_at_run_time_uses_hybrid_kernels() -> None:
    weight = R.integers(-100, 100, (32, 48)).astype(np.int8)
    feeds = {"x": f(3, 32)}
    model = network(QUANTIZED_AT_RUN_TIME, feeds, w=weight, scale=np.float32(0.01))
    file = assert_agrees(model, feeds, tolerance=0.03)
    assert operators(file)["FULLY_CONNECTED"] == 1


def test_a_table_can_be_halved_while_lowering() -> None:
    table = f(512, 16)
    feeds = {"x": R.integers(0, 512, (2, 5))}
    model = network("y = Gather(table, x)", feeds, table=table)
    file = assert_agrees(model, feeds, tolerance=1e-3, weights="float16")
    assert len(file) < 0.6 * table.nbytes
