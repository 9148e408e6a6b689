"""A file as an ONNX graph: inputs, then node by node, then outputs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converters.litert_import import operators
from converters.litert_import.call import OPERATORS, REMEDY, Call
from converters.litert_import.file import File, Tensor
from converters.litert_import.values import Values
from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import SourceError

IR_VERSION = 10
PRODUCER = "edge-sdk"

operators.load()


def to_onnx(file: File) -> ir.Model:
    """The graph in ONNX; names, types and ranks of inputs and outputs are the file's.

    Raises:
        SourceError: An operator, or a form of it, that has no counterpart here.
    """
    values = Values(file)
    inputs = []
    for name, index in file.inputs:
        value = ir.Value(name=name)
        values.set_raw(index, value)
        value.shape = ir.Shape(_dimensions(name, values.tensor(index)))
        inputs.append(value)
    for node in file.nodes:
        call = Call(node, values)
        if node.custom or node.op not in OPERATORS:
            kind = "custom operator" if node.custom else "operator"
            raise call.refuse(f"no counterpart of this {kind} is known")
        try:
            OPERATORS[node.op](call)
        except (ValueError, IndexError, KeyError, TypeError) as error:
            raise call.refuse(f"it is not as the schema says: {error}") from error
    outputs = [_output(values, name, index, inputs) for name, index in file.outputs]
    values.finish()
    graph = ir.Graph(
        inputs,
        outputs,
        nodes=values.nodes,
        initializers=values.initializers,
        opset_imports={"": values.opset},
        name="main",
    )
    _drop_unused(graph)
    return ir.Model(graph, ir_version=IR_VERSION, producer_name=PRODUCER)


def signature(file: File) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a file, whether it has a form in ONNX or not."""
    inputs, outputs = (
        tuple(
            TensorSpec(
                name=name,
                dtype=file.tensors[index].dtype,
                shape=tuple(_dimensions(name, file.tensors[index])),
            )
            for name, index in side
        )
        for side in (file.inputs, file.outputs)
    )
    return inputs, outputs


def _output(values: Values, name: str, index: int, inputs: list[ir.Value]) -> ir.Value:
    tensor = values.tensor(index)
    try:
        found = values.get(index, real=False)
    except ValueError as error:
        raise SourceError(
            f"its output is made by no node: {error}", where=f"subgraph 0, {name!r}", remedy=REMEDY
        ) from error
    if found.producer() is None or found.name in dict(values.file.outputs):
        # An input or a constant, or what is another output already, stays what it is.
        found = values.emit("Identity", [found])
    found.name = name
    found.dtype = ir.DataType.from_numpy(np.dtype(tensor.dtype))
    found.shape = ir.Shape(_dimensions(name, tensor))
    return found


def _dimensions(name: str, tensor: Tensor) -> list[int | str]:
    """A shape in which free dimensions have names: rows of a batch the same for all."""
    return [
        size if size >= 0 else "batch" if axis == 0 else f"free_{axis}"
        for axis, size in enumerate(tensor.shape)
    ]


def _drop_unused(graph: ir.Graph) -> None:
    """Takes away what was derived in a form that nothing asked for in the end."""
    for node in reversed(graph):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
