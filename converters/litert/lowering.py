"""From an ONNX graph to the bytes of a ``.tflite`` file: inputs, nodes, outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

import converters.litert.operators  # noqa: F401  (registers all lowerings)
from converters.litert.call import ENGINE, REMEDY, Weights, shape_of, type_of
from converters.litert.flatbuffer import TYPES, serialize
from converters.litert.subgraph import Subgraph
from converters.litert.tensors import Tensor
from converters.litert.values import Values, hold
from converters.litert.walk import lower_nodes
from converters.passes.base import Context
from converters.passes.fuse_gelu import FuseGelu
from converters.passes.infer_shapes import InferShapes
from edge_sdk.errors import ConversionError

# What inputs and outputs can be cast from and to.
CASTS = {dtype for dtype in TYPES if dtype != np.uint64}
# Since then axes are inputs, and Softmax has one axis.
OLDEST_OPSET = 13


def lower(model: ir.Model, *, weights: Weights = "float32") -> bytes:
    """Brings a graph to TensorFlow Lite.

    Names, element types, ranks and the order of axes of inputs and outputs stay as they
    are; they are those of the signature ``serving_default``. Axes without a fixed size
    can be resized.

    Args:
        model: The graph: of float operators, or quantized by ``static-qdq`` or
            ``dynamic-int8``. It is not changed.
        weights: How large constants of layers are stored that are not quantized yet.
            ``int8`` has a scale per output channel and quantizes activations at run time.

    Returns:
        The file. The same graph gives the same bytes.

    Raises:
        UnsupportedOperatorError: A node cannot be brought to LiteRT.
        ConversionError: An input or output cannot.
    """
    assert weights in get_args(Weights)
    if model.opset_imports.get("", OLDEST_OPSET) < OLDEST_OPSET:
        raise ConversionError(
            f"its operators are of opset {model.opset_imports['']}, before {OLDEST_OPSET}",
            where=f"graph {model.graph.name!r}",
            remedy="put the pass upgrade-opset first",
        )
    model = model.clone()
    for rewrite in (InferShapes(context=Context()), FuseGelu(context=Context())):
        rewrite.call(model)
    graph = Subgraph("main")
    values = Values(graph)
    inputs = {str(value.name): _add_input(value, values) for value in _inputs(model.graph)}
    lower_nodes(model.graph, values, weights)
    outputs = {str(value.name): _add_output(value, values) for value in model.graph.outputs}
    for subgraph in values.graphs:
        subgraph.prune()
    return serialize(values.graphs, inputs, outputs)


def _inputs(graph: ir.Graph) -> list[ir.Value]:
    return [value for value in graph.inputs if value.name not in graph.initializers]


def _type(value: ir.Value) -> np.dtype[Any] | None:
    return None if value.dtype is None else np.dtype(value.dtype.numpy())


def _add_input(value: ir.Value, values: Values) -> Tensor:
    if value.dtype is not None and _type(value) not in CASTS:
        raise ConversionError(
            f"{ENGINE} has no inputs of type {value.dtype.name}",
            where=f"input {value.name!r}",
            remedy=REMEDY,
        )
    shape, dtype = shape_of(value), type_of(value)
    if shape is None or dtype is None or value.dtype is None:
        raise ConversionError(
            "its rank or element type is not known", where=f"input {value.name!r}"
        )
    name = str(value.name)
    tensor = Tensor(name, np.dtype(value.dtype.numpy()), shape)
    values.graph.inputs.append(tensor)
    values.scope = name
    values.name_sizes(tensor)
    values[value] = hold(values.cast(_limited(tensor, values), dtype))
    return tensor


def _limited(tensor: Tensor, values: Values) -> Tensor:
    """Integers of 64 bits at the limits of 32: those beyond would become other numbers."""
    if tensor.dtype != np.int64:
        return tensor
    for op, options, limit in (
        ("MINIMUM", schema.MaximumMinimumOptionsT(), np.iinfo(np.int32).max),
        ("MAXIMUM", schema.MaximumMinimumOptionsT(), np.iinfo(np.int32).min),
    ):
        bound = values.integers(limit, tensor.dtype)
        tensor = values.add(op, [tensor, bound], tensor.shape, tensor.dtype, options)
    return tensor


def _add_output(value: ir.Value, values: Values) -> Tensor:
    """A tensor of its own, whatever else the value is used for."""
    assert value.dtype is not None, "outputs of a model have a type"
    values.scope = name = str(value.name)
    tensor = values.form(values[value])
    dtype = np.dtype(value.dtype.numpy())
    graph = values.graph
    taken = tensor in graph.inputs or tensor in graph.outputs or tensor.data is not None
    quantization = tensor.quantization
    if quantization is not None and dtype == np.uint8:
        shifted = replace(quantization, zero_point=quantization.zero_point + 128)
        tensor = values.add("QUANTIZE", [tensor], tensor.shape, dtype, None, shifted)
    elif tensor.dtype != dtype:
        tensor = values.cast(tensor, dtype)
    elif taken:
        tensor = values.copy(tensor)
    tensor.name = name
    graph.outputs.append(tensor)
    return tensor
