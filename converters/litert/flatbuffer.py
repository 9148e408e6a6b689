"""Writes subgraphs into the bytes of a ``.tflite`` file.

Equal input gives equal bytes. Constants lie at multiples of 64 bytes, so that
kernels read them where the file is mapped, and are stored once however many
subgraphs use them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.litert.subgraph import Operator, Subgraph, digest
from converters.litert.tensors import Array, Quantization, Tensor, unknown
from edge_sdk.errors import ConversionError

IDENTIFIER = b"TFL3"
VERSION = 3
ALIGNMENT = 64
# Offsets have 32 bits with a sign; what is not weights stays far below the difference.
MAX_WEIGHTS = 2_000_000_000
# The oldest version of a kernel that readers still have, where that is not the first.
VERSIONS = {"BROADCAST_TO": 2}
SIGNATURE = "serving_default"

NUMBERS = "float32 float16 float64 int8 uint8 int16 uint16 int32 uint32 int64 uint64 bool"
TYPES = {np.dtype(name): getattr(schema.TensorType, name.upper()) for name in NUMBERS.split()}


class _Builder(flatbuffers.Builder):  # type: ignore[misc]
    """Aligns what kernels read in place, and copies it once."""

    def CreateNumpyVector(self, x: Array) -> int:  # noqa: N802
        data = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
        self.StartVector(1, data.size, ALIGNMENT)
        self.head: int = self.head - data.size
        self.Bytes[self.head : self.head + data.size] = data.data
        return int(self.EndVector())


def serialize(
    subgraphs: Sequence[Subgraph], inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
) -> bytes:
    """The bytes of a model.

    Args:
        subgraphs: The main graph, then those that its operators call.
        inputs: Tensors of the main graph by the name that callers use.
        outputs: The same for its outputs.

    Raises:
        ConversionError: The weights do not fit into a file.
    """
    codes: dict[str, int] = {}
    stored, buffers = _buffers(subgraphs)
    weights = sum(buffer.data.nbytes for buffer in buffers if buffer.data is not None)
    if weights > MAX_WEIGHTS:
        raise ConversionError(
            f"its weights take {weights / 1e9:.1f} GB, and a .tflite file has room for "
            f"{MAX_WEIGHTS / 1e9:.0f} GB",
            where=f"graph {subgraphs[0].name!r}",
            remedy="quantize them to int8, or use ONNX Runtime",
        )
    graphs = [_subgraph(graph, codes, stored) for graph in subgraphs]
    index = {tensor: i for i, tensor in enumerate(subgraphs[0].tensors)}
    signature = schema.SignatureDefT(
        inputs=[schema.TensorMapT(name, index[tensor]) for name, tensor in inputs.items()],
        outputs=[schema.TensorMapT(name, index[tensor]) for name, tensor in outputs.items()],
        signatureKey=SIGNATURE,
    )
    model = schema.ModelT(
        version=VERSION,
        operatorCodes=[_operator_code(name) for name in codes],
        subgraphs=graphs,
        description="edge-sdk",
        buffers=buffers,
        signatureDefs=[signature],
    )
    builder = _Builder(weights + weights // 16 + (1 << 20))
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(memoryview(builder.Bytes)[builder.head :])


def _operator_code(name: str) -> Any:
    code = getattr(schema.BuiltinOperator, name)
    # Old readers look at one byte; 127 sends them to the wider field.
    return schema.OperatorCodeT(
        deprecatedBuiltinCode=min(code, 127), version=VERSIONS.get(name, 1), builtinCode=code
    )


def _buffers(subgraphs: Sequence[Subgraph]) -> tuple[dict[int, int], list[Any]]:
    """Where the elements of each constant lie, by identity of the array, and all of them.

    They are in order of size: weights that are read once, to be packed, lie apart from the
    small constants that every call reads, which would keep them in memory.
    """
    arrays = [t.data for graph in subgraphs for t in graph.tensors if t.data is not None]
    contents = {id(array): digest(array) for array in arrays}
    distinct = {contents[id(array)]: array for array in arrays}
    ordered = sorted(distinct, key=lambda content: distinct[content].nbytes)
    places = {content: index for index, content in enumerate(ordered, start=1)}
    # The first stands for "no data".
    buffers = [schema.BufferT(), *(schema.BufferT(data=distinct[content]) for content in ordered)]
    return {array: places[content] for array, content in contents.items()}, buffers


def _subgraph(graph: Subgraph, codes: dict[str, int], stored: Mapping[int, int]) -> Any:
    index = {tensor: i for i, tensor in enumerate(graph.tensors)}
    return schema.SubGraphT(
        tensors=[_tensor(tensor, stored) for tensor in graph.tensors],
        inputs=[index[tensor] for tensor in graph.inputs],
        outputs=[index[tensor] for tensor in graph.outputs],
        operators=[_operator(operator, index, codes) for operator in graph.operators],
        name=graph.name,
    )


def _operator(operator: Operator, index: Mapping[Tensor, int], codes: dict[str, int]) -> Any:
    options = operator.options
    kind = type(options).__name__.removesuffix("T") if options is not None else "NONE"
    return schema.OperatorT(
        opcodeIndex=codes.setdefault(operator.op, len(codes)),
        inputs=[-1 if tensor is None else index[tensor] for tensor in operator.inputs],
        outputs=[index[tensor] for tensor in operator.outputs],
        builtinOptionsType=getattr(schema.BuiltinOptions, kind),
        builtinOptions=options,
    )


def _tensor(tensor: Tensor, stored: Mapping[int, int]) -> Any:
    buffer = 0 if tensor.data is None else stored[id(tensor.data)]
    dynamic = unknown(tensor.shape)
    return schema.TensorT(
        shape=[size if isinstance(size, int) else 1 for size in tensor.shape],
        shapeSignature=[size if isinstance(size, int) else -1 for size in tensor.shape]
        if dynamic
        else None,
        type=TYPES[tensor.dtype],
        buffer=buffer,
        name=tensor.name,
        quantization=None if tensor.quantization is None else _quantization(tensor.quantization),
        hasRank=True,
    )


def _quantization(quantization: Quantization) -> Any:
    return schema.QuantizationParametersT(
        scale=list(quantization.scale),
        zeroPoint=[quantization.zero_point] * len(quantization.scale),
        quantizedDimension=quantization.axis,
    )
