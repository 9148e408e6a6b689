"""Small ``.tflite`` files for tests, written with LiteRT's own schema."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
    "bool": schema.TensorType.BOOL,
}


class File:
    """One graph, built tensor by tensor and node by node."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.model.signatureDefs = []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str = "float32",
        scale: Any = None,
        zero: Any = 0,
        axis: int = 0,
    ) -> int:
        """Adds a tensor and returns its index; a size of -1 is a free dimension."""
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer = name.encode(), TYPES[dtype], 0
        tensor.shape = [max(size, 1) for size in shape]
        if -1 in shape:
            tensor.shapeSignature = list(shape)
        if scale is not None:
            found = schema.QuantizationParametersT()
            found.scale = np.atleast_1d(np.asarray(scale, np.float32))
            found.zeroPoint = np.broadcast_to(np.asarray(zero, np.int64), found.scale.shape)
            found.quantizedDimension = axis
            tensor.quantization = found
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, name: str, data: np.ndarray, **quantized: Any) -> int:
        """Adds a tensor with its values."""
        index = self.tensor(name, data.shape, str(data.dtype), **quantized)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(data.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        self.graph.tensors[index].buffer = len(self.model.buffers) - 1
        return index

    def op(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: str = "",
        version: int = 1,
        **values: Any,
    ) -> None:
        """Adds a node; ``options`` is the name of its options table, ``values`` its fields."""
        code = schema.OperatorCodeT()
        custom = not hasattr(schema.BuiltinOperator, name)
        code.builtinCode = getattr(schema.BuiltinOperator, "CUSTOM" if custom else name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.customCode = name.encode() if custom else None
        code.version = version
        self.model.operatorCodes.append(code)
        node = schema.OperatorT()
        node.opcodeIndex = len(self.model.operatorCodes) - 1
        node.inputs, node.outputs = list(inputs), list(outputs)
        if options:
            node.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            node.builtinOptions = getattr(schema, f"{options}T")()
            for field, value in values.items():
                setattr(node.builtinOptions, field, value)
        self.graph.operators.append(node)

    def write(
        self,
        inputs: dict[str, int],
        outputs: dict[str, int],
        signature: str | None = "serving_default",
    ) -> bytes:
        """The file's bytes; without a signature its tensors' own names stay."""
        self.graph.inputs, self.graph.outputs = list(inputs.values()), list(outputs.values())
        if signature is not None:
            found = schema.SignatureDefT()
            found.signatureKey, found.subgraphIndex = signature.encode(), 0
            found.inputs, found.outputs = _map(inputs), _map(outputs)
            self.model.signatureDefs.append(found)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _map(names: dict[str, int]) -> list[Any]:
    found = []
    for name, index in names.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), index
        found.append(entry)
    return found


def dense(
    widths: Sequence[int] = (8, 16, 4),
    *,
    batch: int = -1,
    seed: int = 0,
    signature: str | None = "serving_default",
) -> bytes:
    """``y = W2 relu(W1 x + b1) + b2`` and so on, for random weights."""
    rng = np.random.default_rng(seed)
    file = File()
    first = value = file.tensor("dense_x", (batch, widths[0]))
    for layer, (width, following) in enumerate(pairwise(widths)):
        weight = rng.standard_normal((following, width)).astype(np.float32)
        bias = rng.standard_normal(following).astype(np.float32)
        inputs = [
            value,
            file.constant(f"w{layer}", weight / np.float32(width**0.5)),
            file.constant(f"b{layer}", bias),
        ]
        value = file.tensor(f"dense_{layer}", (batch, following))
        file.op(
            "FULLY_CONNECTED",
            inputs,
            [value],
            "FullyConnectedOptions",
            fusedActivationFunction=int(layer + 2 < len(widths)),
        )
    return file.write({"x": first}, {"y": value}, signature)
