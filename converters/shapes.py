"""A graph's shapes once its symbolic dimensions have values: what cost and memory models read.

ONNX's shape inference knows no contrib operators, so the graph is copied and
each of them is replaced by a standard *stand-in* with the same output shapes
and the same arithmetic (``MatMulNBits`` by ``MatMul``). Cost rules then need
to know standard operators only. Shapes that the graph itself computes (the
target of a ``Reshape``) are computed here with ONNX's reference operators.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference.ops import load_op

from converters.describe import tensor_spec
from converters.passes.base import each_graph
from converters.passes.graph_tools import (
    CONTRIB,
    Array,
    static_shape,
    subgraphs,
    tensor_of,
    unique,
)
from converters.passes.infer_shapes import SHAPE_TENSOR_BYTES, InferShapes
from edge_sdk.bundle.record import TensorSpec
from edge_sdk.runtime.inputs import dimensions as dimensions_of

# Contrib operator -> one of any standard opset with its shapes and about its cost, and the
# inputs that matter to them (Erf, not Gelu, which opset 20 brought).
STAND_INS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "BiasGelu": ("Add", (0, 1)),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "FastGelu": ("Erf", (0,)),
    "FusedConv": ("Conv", (0, 1)),
    "FusedMatMul": ("MatMul", (0, 1)),
    "Gelu": ("Erf", (0,)),
    "MatMulIntegerToFloat": ("MatMul", (0, 1)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QLinearLeakyRelu": ("LeakyRelu", (0,)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearSigmoid": ("Sigmoid", (0,)),
    "QLinearSoftmax": ("Softmax", (0,)),
    "QuickGelu": ("Erf", (0,)),
    "SimplifiedLayerNormalization": ("LayerNormalization", (0, 1)),
    "SkipLayerNormalization": ("LayerNormalization", (0, 2)),
    "SkipSimplifiedLayerNormalization": ("LayerNormalization", (0, 2)),
}

# Operators that exporters compute shapes with.
SHAPE_MATH = frozenset({
    "Abs", "Add", "And", "Cast", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal", "Expand",
    "Floor", "Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max",
    "Min", "Mod", "Mul", "Neg", "Not", "Or", "Range", "ReduceMax", "ReduceMin", "ReduceProd",
    "Reshape", "Round", "ScatterND", "Shape", "Size", "Slice", "Split", "Squeeze", "Sub",
    "Transpose", "Unsqueeze", "Where",
})  # fmt: skip

INFERENCE_ERRORS = (
    onnx.checker.ValidationError,
    onnx.defs.SchemaError,
    onnx.shape_inference.InferenceError,
    RuntimeError,
)


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
            if node.domain == CONTRIB:
                _stand_in(node, copy)
            for value in node.outputs:
                # What exporters wrote down holds for other dimensions, or for none.
                value.shape = _substituted(value.shape, dimensions) if node.domain else None
    InferShapes()(copy)
    _Completion(copy).walk(copy.graph)
    return copy


def _substituted(shape: ir.Shape | None, dimensions: Mapping[str, int]) -> ir.Shape | None:
    if shape is None:
        return None
    return ir.Shape(
        size if isinstance(size, int) else dimensions.get(str(size.value)) for size in shape
    )


def _stand_in(node: ir.Node, model: ir.Model) -> None:
    if node.op_type == "MatMulNBits":
        columns, rows = (node.attributes.get_int(name, 0) for name in "NK")
        operator, inputs = "MatMul", [node.inputs[0], _float_weight(node, [rows, columns], model)]
    elif node.op_type in STAND_INS:
        operator, places = STAND_INS[node.op_type]
        inputs = [node.inputs[place] for place in places]
        weight = inputs[-1]
        if operator == "MatMul" and weight is not None and weight.shape is not None:
            inputs[-1] = _float_weight(node, weight.shape, model)
    else:
        return
    node.op_type, node.domain = operator, ""
    known = onnx.defs.get_schema(operator).attributes
    for name in [name for name in node.attributes if name not in known]:
        del node.attributes[name]
    node.resize_inputs(len(inputs))
    for place, value in enumerate(inputs):
        node.replace_input_with(place, value)


def _float_weight(node: ir.Node, shape: Iterable[Any], model: ir.Model) -> ir.Value:
    """A value with the logical shape of a quantized weight; there are no bytes behind it."""
    graph = model.graph
    name = unique(f"{node.name}_weight", set(graph.initializers))
    kind, sizes = ir.DataType.FLOAT, ir.Shape(shape)
    tensor = ir.ExternalTensor("weights", offset=0, length=None, dtype=kind, shape=sizes, name=name)
    value = ir.Value(name=name, type=ir.TensorType(kind), shape=sizes, const_value=tensor)
    graph.register_initializer(value)
    return value


class _Completion:
    """Fills in, node after node, what shape inference of the whole graph leaves open."""

    def __init__(self, model: ir.Model) -> None:
        self.opset = onnx.helper.make_opsetid("", model.opset_imports.get("", 1))
        self.arrays: dict[ir.Value, Array] = {}

    def walk(self, graph: ir.Graph) -> None:
        """Walks a graph in its topological order, subgraphs before what follows their owner."""
        for node in graph:
            branches = subgraphs(node)
            for inner in branches:
                self.walk(inner)
            if node.op_type in SHAPE_MATH and not node.domain:
                self._compute(node)
            if all(static_shape(value) is not None for value in node.outputs):
                continue
            if node.op_type == "If":
                _take_larger(node, branches)
            elif not branches and not node.domain:
                self._infer(node)

    def _compute(self, node: ir.Node) -> None:
        """Computes a node of small arrays; a damaged one keeps its unknown shape."""
        shape = static_shape(node.inputs[0]) if node.inputs else None
        if node.op_type == "Shape" and shape is not None:
            first, last = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
            arrays: Sequence[Array] = [np.array(shape[first:last], np.int64)]
        elif node.op_type == "Size" and shape is not None:
            arrays = [np.array(prod(shape), np.int64)]
        else:
            given = [self._array(value) for value in node.inputs]
            if any(array is None for array in given) or _is_filler(node, given):
                return
            operator = load_op("", node.op_type, self.opset.version)
            try:
                with np.errstate(all="ignore"):  # a mask's lowest float32 is none of float16
                    outputs = len(node.outputs)
                    found = operator.eval(*given, n_outputs=outputs, **_attributes(node))
            except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
                return
            arrays = found if isinstance(found, tuple) else [found]
        for value, array in zip(node.outputs, map(np.asarray, arrays), strict=False):
            value.shape = ir.Shape(array.shape)
            value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            if array.nbytes <= SHAPE_TENSOR_BYTES:
                self.arrays[value] = array

    def _array(self, value: ir.Value | None) -> Array | None:
        if value is not None and value not in self.arrays:
            tensor = tensor_of(value)
            if tensor is not None and tensor.nbytes <= SHAPE_TENSOR_BYTES:
                self.arrays[value] = tensor.numpy()
        return None if value is None else self.arrays.get(value)

    def _infer(self, node: ir.Node) -> None:
        """ONNX's inference for one node, given the arrays computed so far."""
        given = [value for value in node.inputs if value is not None]
        if any(value.type is None for value in given):
            return
        arrays = {value.name or "": self._array(value) for value in given}
        try:
            found = onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(node.op_type, self.opset.version, ""),
                ir.to_proto(node),
                {value.name or "": _type_proto(value) for value in given},
                {n: onnx.numpy_helper.from_array(a) for n, a in arrays.items() if a is not None},
                opset_imports=[self.opset],
            )
        except INFERENCE_ERRORS:
            return
        for value in node.outputs:
            if value.name in found:
                value.type = ir.serde.deserialize_type_proto_for_type(found[value.name])
                value.shape = ir.serde.deserialize_type_proto_for_shape(found[value.name])


def _is_filler(node: ir.Node, given: Sequence[Array | None]) -> bool:
    """Whether a node fills a large tensor from a small shape; inference knows its shape too."""
    place = {"ConstantOfShape": 0, "Expand": 1}.get(node.op_type)
    shape = given[place] if place is not None else None
    return shape is not None and int(np.prod(shape)) > SHAPE_TENSOR_BYTES


def _attributes(node: ir.Node) -> dict[str, Any]:
    return {
        name: ir.to_proto(a.value) if a.type == ir.AttributeType.TENSOR else a.value
        for name, a in node.attributes.items()
    }


def _type_proto(value: ir.Value) -> onnx.TypeProto:
    proto = onnx.TypeProto()
    assert value.type is not None
    ir.serde.serialize_type_into(proto, value.type)
    if value.shape is not None:
        ir.serde.serialize_shape_into(proto, value.shape)
    return proto


def _take_larger(node: ir.Node, branches: Sequence[ir.Graph]) -> None:
    """Gives the outputs of an ``If`` the larger of the shapes that its branches end with."""
    for value, *results in zip(node.outputs, *(b.outputs for b in branches), strict=True):
        shapes = [shape for result in results if (shape := static_shape(result)) is not None]
        if shapes:
            value.shape = ir.Shape(sorted(shapes, key=_elements)[-1])
        value.type = value.type or results[0].type


def _elements(shape: tuple[int, ...]) -> int:
    return prod(shape)
