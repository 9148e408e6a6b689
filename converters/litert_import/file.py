"""Reading a ``.tflite`` file: the main graph as typed values, over the file's mapped bytes."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from converters.litert_file import IDENTIFIER
from converters.litert_import.sparse import densified
from edge_sdk.errors import SourceError

Array = NDArray[Any]
VERSION = 3  # of the schema, since 2017
ABSENT = -1  # an optional operand that is left out
NAMES = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")
}
TYPES: Mapping[int, str] = {
    code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")
}
CUSTOM = "CUSTOM"


@dataclass(frozen=True)
class Quantization:
    """``real = (quantized - zero) * scale``.

    Attributes:
        scale: float32, one or one per index along ``axis``.
        zero: int64, as many.
        axis: The axis with a scale per index; ``None`` for one scale.
    """

    scale: NDArray[np.float32]
    zero: NDArray[np.int64]
    axis: int | None


@dataclass(frozen=True)
class Tensor:
    """One tensor of the graph.

    Attributes:
        name: As in the file; neither unique nor always there.
        dtype: numpy's name, or ``string``.
        shape: -1 for a free dimension.
        data: Values of a constant, mapped from the file.
        quantization: Of an integer tensor that stands for real numbers.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Array | None = None
    quantization: Quantization | None = None


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        op: Name of the built-in operator, or of the custom one.
        inputs: Tensors by index; -1 for an absent operand.
        outputs: Tensors by index.
        options: The operator's options table; ``None`` where it has none.
        custom: Whether the operator is not LiteRT's own.
    """

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any
    custom: bool


@dataclass(frozen=True)
class File:
    """The main graph of a file.

    Attributes:
        path: The file.
        tensors: By index.
        nodes: In the order of execution.
        inputs: Name and tensor, in the graph's order, named as a signature does.
        outputs: As the inputs.
    """

    path: Path
    tensors: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


def read(path: Path) -> File:
    """Reads a file; the bytes of its constants stay mapped.

    Raises:
        SourceError: It cannot be read, is damaged, or is of another schema.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise SourceError(f"cannot be read: {error}", where=str(path)) from None
    if data[4:8] != IDENTIFIER:
        raise SourceError("is no .tflite file", where=str(path), remedy="export it again")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        return _file(path, data, model)
    except (
        struct.error, IndexError, ValueError, TypeError, AttributeError, KeyError, OverflowError,
        MemoryError, RecursionError, UnicodeDecodeError,
    ) as error:  # fmt: skip
        raise SourceError(
            f"is damaged: {error}", where=str(path), remedy="copy or export it again"
        ) from error


def _file(path: Path, data: mmap.mmap, model: Any) -> File:
    if model.version != VERSION:
        raise SourceError(
            f"has schema version {model.version}; {VERSION} is known",
            where=str(path),
            remedy="update ai-edge-litert, or export for a released version",
        )
    graph = model.subgraphs[0]
    made = {
        int(i)
        for ends in (graph.inputs, *(n.outputs for n in _list(graph.operators)))
        for i in ends
    }
    tensors = tuple(
        _tensor(tensor, model, data, made=index in made)
        for index, tensor in enumerate(graph.tensors)
    )
    codes = [_operator(code, path) for code in model.operatorCodes]
    nodes = tuple(_node(node, codes, tensors) for node in _list(graph.operators))
    inputs, outputs = _names(model, graph, tensors)
    return File(path, tensors, nodes, inputs, outputs)


def _tensor(tensor: Any, model: Any, data: mmap.mmap, *, made: bool) -> Tensor:
    name = (tensor.name or b"").decode("utf-8", "replace")
    shape = tuple(int(size) for size in _list(tensor.shape))
    signature = tuple(int(size) for size in _list(tensor.shapeSignature))
    dtype = TYPES[tensor.type]
    found = _bytes(model.buffers[tensor.buffer], data)
    if tensor.sparsity is not None and found is not None:
        found = _with_zeros(found, dtype, tensor.sparsity, shape)
    values = _values(dtype, shape, found, name)
    if values is None and not made and 0 in shape:
        values = np.zeros(shape, dtype)  # a constant of no elements has no bytes
    return Tensor(
        name=name,
        dtype="int8" if dtype in ("int4", "int2") else dtype,
        shape=shape if values is not None or len(signature) != len(shape) else signature,
        data=values,
        quantization=_quantization(tensor.quantization, shape),
    )


def _bytes(buffer: Any, data: mmap.mmap) -> Array | None:
    found = buffer.data
    if found is not None and len(found):
        return np.asarray(found, np.uint8)
    if buffer.size > 1:  # behind the flatbuffer, in files beyond 2 GB
        return np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
    return None


def _values(dtype: str, shape: tuple[int, ...], found: Array | None, name: str) -> Array | None:
    if found is None or dtype == "string":
        return None
    if dtype in ("int4", "int2"):
        return _unpacked(found, int(dtype[3:]), prod(shape)).reshape(shape)
    element = np.dtype(dtype)
    if found.nbytes != prod(shape) * element.itemsize:
        raise ValueError(f"tensor {name!r} has {found.nbytes} bytes for shape {shape}")
    return found.view(element).reshape(shape)


def _with_zeros(found: Array, dtype: str, sparsity: Any, shape: tuple[int, ...]) -> Array:
    dense: Array = densified(found.view(np.dtype(dtype)), sparsity, shape).view(np.uint8)
    return dense.reshape(-1)


def _unpacked(found: Array, bits: int, count: int) -> NDArray[np.int8]:
    """Signed values of some bits, the lowest ones of a byte first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (found[:, None] >> shifts).reshape(-1)[:count] << np.uint8(8 - bits)
    values: NDArray[np.int8] = codes.astype(np.uint8).view(np.int8) >> np.int8(8 - bits)
    return values


def _quantization(found: Any, shape: tuple[int, ...]) -> Quantization | None:
    scale = np.asarray(_list(found.scale) if found else [], np.float32)
    if not scale.size:
        return None
    zero = np.asarray(_list(found.zeroPoint), np.int64)
    zero = np.broadcast_to(zero if zero.size else np.zeros(1, np.int64), scale.shape)
    if scale.size == 1:
        return Quantization(scale, zero, None)
    if shape[found.quantizedDimension] != scale.size:
        raise ValueError(f"{scale.size} scales for shape {shape}")
    return Quantization(scale, zero, int(found.quantizedDimension))


def _operator(code: Any, path: Path) -> tuple[str, bool]:
    # Files from before 2020 have the smaller field alone.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if number not in NAMES:
        raise SourceError(
            f"uses the built-in operator {number}, which is newer than the schema known here",
            where=str(path),
            remedy="update ai-edge-litert, or export for a released version",
        )
    if NAMES[number] == CUSTOM:
        return (code.customCode or b"?").decode("utf-8", "replace"), True
    return NAMES[number], False


def _node(node: Any, codes: list[tuple[str, bool]], tensors: tuple[Tensor, ...]) -> Node:
    op, custom = codes[node.opcodeIndex]
    inputs, outputs = (tuple(int(i) for i in _list(ids)) for ids in (node.inputs, node.outputs))
    for index in (*inputs, *outputs):
        if not ABSENT <= index < len(tensors):
            raise IndexError(f"a node {op} has no tensor {index}")
    return Node(op, inputs, outputs, node.builtinOptions or node.builtinOptions2, custom)


def _names(
    model: Any, graph: Any, tensors: tuple[Tensor, ...]
) -> tuple[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]:
    """Inputs and outputs by the names of a signature of the main graph, or of their tensors."""
    ends = [int(i) for i in graph.inputs], [int(i) for i in graph.outputs]
    for signature in _list(model.signatureDefs):
        sides = _list(signature.inputs), _list(signature.outputs)
        if signature.subgraphIndex == 0 and all(
            {entry.tensorIndex for entry in side} == set(indices)
            for side, indices in zip(sides, ends, strict=True)
        ):
            inputs, outputs = (
                tuple(
                    (entry.name.decode(), int(entry.tensorIndex))
                    for entry in sorted(side, key=_by_position(indices))
                )
                for side, indices in zip(sides, ends, strict=True)
            )
            return inputs, outputs
    inputs, outputs = (tuple((tensors[i].name, i) for i in indices) for indices in ends)
    return inputs, outputs


def _by_position(indices: list[int]) -> Callable[[Any], int]:
    return lambda entry: indices.index(entry.tensorIndex)


def _list(found: Any) -> Any:
    return [] if found is None else found
