"""A graph's shapes once its symbolic dimensions have values: what cost and memory models read.

ONNX's shape inference knows no contrib operators, so the graph is copied and
each of them is replaced by a standard *stand-in* with the same output shapes
and the same arithmetic (``MatMulNBits`` by ``MatMul``). Cost rules then need
to know standard operators only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters.describe import tensor_spec
from converters.passes.base import each_graph
from converters.passes.graph_tools import CONTRIB, unique
from converters.passes.infer_shapes import InferShapes
from edge_sdk.bundle.record import TensorSpec
from edge_sdk.runtime.inputs import dimensions as dimensions_of

# Contrib operator -> the standard one with its shapes, and the inputs that matter to them.
STAND_INS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "BiasGelu": ("Add", (0, 1)),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "FastGelu": ("Gelu", (0,)),
    "FusedConv": ("Conv", (0, 1)),
    "FusedMatMul": ("MatMul", (0, 1)),
    "Gelu": ("Gelu", (0,)),
    "MatMulIntegerToFloat": ("MatMul", (0, 1)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QLinearLeakyRelu": ("LeakyRelu", (0,)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearSigmoid": ("Sigmoid", (0,)),
    "QLinearSoftmax": ("Softmax", (0,)),
    "QuickGelu": ("Gelu", (0,)),
    "SimplifiedLayerNormalization": ("LayerNormalization", (0, 1)),
    "SkipLayerNormalization": ("LayerNormalization", (0, 2)),
    "SkipSimplifiedLayerNormalization": ("LayerNormalization", (0, 2)),
}


def reference_dimensions(
    inputs: Sequence[TensorSpec], sample_calls: Iterable[Mapping[str, NDArray[np.generic]]]
) -> dict[str, int]:
    """Symbolic dimension -> the largest value it has in some calls.

    Args:
        inputs: The graph's inputs; ones that a call lacks do not count.
        sample_calls: Input name -> array, for each call.
    """
    largest: dict[str, int] = {}
    for feeds in sample_calls:
        for symbol, size in dimensions_of(inputs, feeds).items():
            largest[symbol] = max(size, largest.get(symbol, 0))
    return largest


def bind(model: ir.Model, dimensions: Mapping[str, int]) -> ir.Model:
    """A copy of ``model`` with values for symbolic dimensions and all shapes that follow.

    Graphs and nodes keep their order, so the two can be walked side by side;
    contrib operators are replaced by stand-ins, so the copy is not to be run.

    Args:
        model: The graph; it is not changed, and its weights are not read.
        dimensions: Values of symbolic dimensions; an input's dimension that is
            not among them counts as 1, as in a batch.
    """
    copy = model.clone()
    for value in copy.graph.inputs:
        spec = tensor_spec(value)
        if spec.shape is not None:
            value.shape = ir.Shape(
                size if isinstance(size, int) else dimensions.get(size, 1) for size in spec.shape
            )
    for graph in each_graph(copy.graph):
        for node in graph:
            for value in node.outputs:
                value.shape = _substituted(value.shape, dimensions)
            if node.domain == CONTRIB:
                _stand_in(node, copy)
    return InferShapes()(copy).model


def _substituted(shape: ir.Shape | None, dimensions: Mapping[str, int]) -> ir.Shape | None:
    if shape is None:
        return None
    return ir.Shape(
        size if isinstance(size, int) else dimensions.get(str(size.value), size.value)
        for size in shape
    )


def _stand_in(node: ir.Node, model: ir.Model) -> None:
    if node.op_type == "MatMulNBits":
        weight = _packed_weight(node, model)
        operator, inputs = "MatMul", [node.inputs[0], weight]
    elif node.op_type in STAND_INS:
        operator, places = STAND_INS[node.op_type]
        inputs = [node.inputs[place] for place in places]
    else:
        return
    node.op_type, node.domain = operator, ""
    node.resize_inputs(len(inputs))
    for place, value in enumerate(inputs):
        node.replace_input_with(place, value)


def _packed_weight(node: ir.Node, model: ir.Model) -> ir.Value:
    """A value with the logical shape of a packed weight; there are no bytes behind it."""
    graph = model.graph
    name = unique(f"{node.name}_weight", set(graph.initializers))
    shape = ir.Shape([node.attributes.get_int("K", 0), node.attributes.get_int("N", 0)])
    tensor = ir.ExternalTensor(
        "weights", offset=0, length=None, dtype=ir.DataType.FLOAT, shape=shape, name=name
    )
    value = ir.Value(
        name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=shape, const_value=tensor
    )
    graph.register_initializer(value)
    return value
