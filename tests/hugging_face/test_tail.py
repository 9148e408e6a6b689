"""Pooling and dense layers in the graph give what they are defined to, padding left out."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from converters.hugging_face.tail import ACTIVATIONS, POOLINGS, Tail

pytestmark = pytest.mark.converts
LENGTHS = (5, 3, 1)
VECTORS = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
MASK = (np.arange(5) < np.array(LENGTHS)[:, None]).astype(np.int64)


def tail(opset: int) -> tuple[onnx.ModelProto, Tail]:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["states"])],
        "encoder",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "sequence", 4]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "s"]),
        ],
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, ["batch", "sequence", 4])],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return model, Tail(model, "states")


def run(model: onnx.ModelProto) -> np.ndarray:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"x": VECTORS, "attention_mask": MASK})
    return found


def pooled(mode: str, rows: np.ndarray) -> np.ndarray:
    weights = np.arange(1, len(rows) + 1)[:, None]
    return {
        "cls": rows[0],
        "max": rows.max(0),
        "mean": rows.mean(0),
        "mean-sqrt": rows.sum(0) / math.sqrt(len(rows)),
        "weighted-mean": (rows * weights).sum(0) / weights.sum(),
        "last": rows[-1],
    }[mode]


@pytest.mark.parametrize("opset", [14, 18])
@pytest.mark.parametrize("mode", POOLINGS.values())
def test_padding_is_no_part_of_a_text(mode: str, opset: int) -> None:
    model, made = tail(opset)
    made.pool([mode])
    made.end("vector")
    expected = [pooled(mode, row[:n]) for row, n in zip(VECTORS, LENGTHS, strict=True)]
    np.testing.assert_allclose(run(model), expected, atol=1e-6)


def test_ways_of_pooling_are_joined_and_layers_follow() -> None:
    model, made = tail(18)
    made.pool(["cls", "last"])
    made.normalize()
    weight = np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32)
    made.dense(weight, np.ones(3, np.float32), "ReLU")
    made.end("vector")
    joined = np.stack([np.concatenate((r[0], r[n - 1])) for r, n in zip(VECTORS, LENGTHS)])  # noqa: B905
    joined /= np.linalg.norm(joined, axis=1, keepdims=True)
    np.testing.assert_allclose(run(model), np.maximum(joined @ weight + 1, 0), atol=1e-6)
    assert model.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 3


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_torch_s(name: str) -> None:
    model, made = tail(18)
    made.pool(["cls"])
    made.dense(np.eye(4, dtype=np.float32), None, name)
    made.end("vector")
    x = VECTORS[:, 0].astype(np.float64)
    expected = {
        "Identity": x,
        "Tanh": np.tanh(x),
        "ReLU": np.maximum(x, 0),
        "Sigmoid": 1 / (1 + np.exp(-x)),
        "SiLU": x / (1 + np.exp(-x)),
        "GELU": x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    }[name]
    np.testing.assert_allclose(run(model), expected, atol=1e-6)
