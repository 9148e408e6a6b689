"""Networks with the shapes of common edge models and random weights, written as ONNX files.

Size, memory and latency do not depend on what the weights are, so these serve
wherever accuracy is not the question. Shapes follow MLPerf Tiny (autoencoder,
keyword spotting, visual wake words, ResNet-8), ResNet-18, a small BERT and a
two-layer LSTM.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
Shape = Sequence[int | str]


class Network:
    """Builds one graph node by node."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self._random = np.random.default_rng(7)

    def input(self, name: str, shape: Shape, kind: int = TensorProto.FLOAT) -> str:
        """Declares an input."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def weight(self, *shape: int) -> str:
        """Random weights, scaled so that activations keep their size."""
        fan_in = max(1, int(np.prod(shape[1:])))
        array = self._random.standard_normal(shape) / np.sqrt(fan_in)
        return self.constant(array.astype(np.float32))

    def constant(self, array: np.ndarray) -> str:
        """A given array."""
        name = f"t{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node and returns its first output."""
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def conv(self, x: str, into: int, out: int, k: int, stride: int = 1, group: int = 1) -> str:
        """Convolution with bias and ReLU; ``same`` padding."""
        pads = [(k - 1) // 2] * 2 + [k // 2] * 2
        weight, bias = self.weight(out, into // group, k, k), self.weight(out)
        y = self.node("Conv", x, weight, bias, kernel_shape=[k, k], strides=[stride] * 2,
                      pads=pads, group=group)  # fmt: skip
        return self.node("Relu", y)

    def dense(self, x: str, into: int, out: int) -> str:
        """``x @ w + b`` over the last axis."""
        return self.node("Add", self.node("MatMul", x, self.weight(into, out)), self.weight(out))

    def pooled(self, x: str, channels: int, classes: int) -> str:
        """Global average pooling and a classifier."""
        flat = self.node("Flatten", self.node("GlobalAveragePool", x))
        return self.dense(flat, channels, classes)

    def save(self, folder: Path, output: str, shape: Shape) -> Path:
        """Writes the graph with one output."""
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, self.name, self.inputs, [result], self.tensors)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8
        )
        path = folder / f"{self.name}.onnx"
        onnx.save(model, path)
        return path


def autoencoder(folder: Path) -> Path:
    """Anomaly detection: ten dense layers."""
    net = Network("autoencoder")
    x = net.input("x", ["batch", 640])
    sizes = [640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640]
    for into, out in pairwise(sizes):
        x = net.node("Relu", net.dense(x, into, out))
    return net.save(folder, x, ["batch", 640])


def keyword_spotting(folder: Path) -> Path:
    """DS-CNN over 49 frames of 10 coefficients."""
    net = Network("keyword_spotting")
    x = net.conv(net.input("x", ["batch", 1, 49, 10]), 1, 64, 5, stride=2)
    for _ in range(4):
        x = net.conv(net.conv(x, 64, 64, 3, group=64), 64, 64, 1)
    return net.save(folder, net.pooled(x, 64, 12), ["batch", 12])


def visual_wake_words(folder: Path) -> Path:
    """MobileNetV1, a quarter of the width, 96 x 96."""
    net = Network("visual_wake_words")
    x = net.conv(net.input("x", ["batch", 3, 96, 96]), 3, 8, 3, stride=2)
    into = 8
    strides = {16: 1, 32: 2, 64: 2, 128: 2, 256: 2}
    for out in (16, 32, 32, 64, 64, 128, 128, 128, 128, 128, 128, 256, 256):
        x = net.conv(x, into, into, 3, stride=strides[out] if out != into else 1, group=into)
        x, into = net.conv(x, into, out, 1), out
    return net.save(folder, net.pooled(x, 256, 2), ["batch", 2])


def _residual(net: Network, x: str, into: int, out: int) -> str:
    stride = 1 if into == out else 2
    y = net.conv(net.conv(x, into, out, 3, stride=stride), out, out, 3)
    return net.node("Add", y, x if into == out else net.conv(x, into, out, 1, stride=stride))


def resnet8(folder: Path) -> Path:
    """ResNet-8, 32 x 32."""
    net = Network("resnet8")
    x = net.conv(net.input("x", ["batch", 3, 32, 32]), 3, 16, 3)
    for into, out in ((16, 16), (16, 32), (32, 64)):
        x = _residual(net, x, into, out)
    return net.save(folder, net.pooled(x, 64, 10), ["batch", 10])


def resnet18(folder: Path) -> Path:
    """ResNet-18, 224 x 224."""
    net = Network("resnet18")
    x = net.conv(net.input("x", ["batch", 3, 224, 224]), 3, 64, 7, stride=2)
    x = net.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for into, out in ((64, 64), (64, 128), (128, 256), (256, 512)):
        x = _residual(net, _residual(net, x, into, out), out, out)
    return net.save(folder, net.pooled(x, 512, 1000), ["batch", 1000])


def encoder(folder: Path, layers: int = 4, hidden: int = 256, words: int = 8192) -> Path:
    """A BERT-like encoder with four heads."""
    net, heads = Network("encoder"), 4
    ids = net.input("input_ids", ["batch", "tokens"], TensorProto.INT64)
    x = net.node("Gather", net.weight(words, hidden), ids)
    split = net.constant(np.array([0, 0, heads, hidden // heads], np.int64))
    joined = net.constant(np.array([0, 0, hidden], np.int64))
    scale = net.constant(np.array((hidden // heads) ** -0.5, np.float32))
    for _ in range(layers):
        q, k, v = (net.node("Reshape", net.dense(x, hidden, hidden), split) for _ in range(3))
        q, v = (net.node("Transpose", value, perm=[0, 2, 1, 3]) for value in (q, v))
        k = net.node("Transpose", k, perm=[0, 2, 3, 1])
        scores = net.node("Softmax", net.node("Mul", net.node("MatMul", q, k), scale), axis=-1)
        mixed = net.node("Transpose", net.node("MatMul", scores, v), perm=[0, 2, 1, 3])
        attended = net.dense(net.node("Reshape", mixed, joined), hidden, hidden)
        x = _normalized(net, net.node("Add", attended, x), hidden)
        inner = net.node("Relu", net.dense(x, hidden, 4 * hidden))
        x = _normalized(net, net.node("Add", net.dense(inner, 4 * hidden, hidden), x), hidden)
    return net.save(folder, x, ["batch", "tokens", hidden])


def _normalized(net: Network, x: str, size: int) -> str:
    one, zero = np.ones(size, np.float32), np.zeros(size, np.float32)
    return net.node("LayerNormalization", x, net.constant(one), net.constant(zero), axis=-1)


def recurrent(folder: Path, hidden: int = 128) -> Path:
    """Two LSTM layers over 64 features."""
    net = Network("recurrent")
    x, into = net.input("x", ["steps", 1, 64]), 64
    axis = net.constant(np.array([1], np.int64))
    for _ in range(2):
        weights = net.weight(1, 4 * hidden, into), net.weight(1, 4 * hidden, hidden)
        x, into = net.node("LSTM", x, *weights, hidden_size=hidden), hidden
        x = net.node("Squeeze", x, axis)
    return net.save(folder, net.dense(x, hidden, 16), ["steps", 1, 16])


MODELS: Mapping[str, Callable[[Path], Path]] = {
    build.__name__: build
    for build in (
        autoencoder, keyword_spotting, visual_wake_words, resnet8, resnet18, encoder, recurrent,
    )
}  # fmt: skip
