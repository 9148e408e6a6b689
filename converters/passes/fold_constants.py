"""Constant folding: what never changes is computed once, here, and not at every load or call.

Each node is computed by the engine that would run it, so folding changes no bit.
A result may not be larger than the constants it replaces (plus a little), so a
weight that is stored small and expanded at load stays small, and a table that is
also used untransposed is not stored twice. Windows and filter banks may grow more.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converters.materialize import opened
from converters.passes.base import GraphPass, Options
from converters.passes.dimensions import known, trace
from converters.passes.graph_tools import (
    Array,
    Editor,
    constant,
    is_op,
    nbytes,
    prune,
    static_shape,
    subgraphs,
    tensor_of,
)
from converters.passes.share_initializers import ShareInitializers
from edge_sdk.errors import EngineError
from edge_sdk.runtime.engine import SessionOptions

RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
DRAWING = (*RANDOM, "Bernoulli", "Multinomial")
# Quantized chains carry the scales that quantization and engines look for.
KEPT = {*DRAWING, "QuantizeLinear", "DequantizeLinear", "Constant"}
# What few engines compute: tables of front ends for sound.
TABLES = ("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix")
TABLE_BYTES = 1 << 20
COMPUTABLE = {
    ir.DataType.BOOL,
    ir.DataType.FLOAT16,
    ir.DataType.FLOAT,
    ir.DataType.DOUBLE,
    *(ir.DataType[f"{sign}INT{bits}"] for sign in ("", "U") for bits in (8, 16, 32, 64)),
}


class FoldConstantsOptions(Options, frozen=True, kw_only=True):
    """Options of :class:`FoldConstants`.

    Attributes:
        growth: Bytes by which a folded result may exceed the constants that go with it.
    """

    growth: int = 1024


class FoldConstants(GraphPass):
    """Replaces nodes of constants, and of dimensions that are known, by initializers."""

    name = "fold-constants"
    options_type = FoldConstantsOptions

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Runs the pass on every graph; constants that only folded nodes used go."""
        result = super().call(model)
        if result.modified:
            prune(model)
            if any(subgraphs(node) for node in model.graph):
                # Sibling branches often fold to the same weight.
                ShareInitializers()(model)
        return result

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Folds one graph in topological order."""
        editor = Editor(graph, model)
        credit: dict[ir.Value, int] = {}
        changes = 0
        for node in graph:
            if any(output.is_graph_output() for output in node.outputs):
                continue
            arrays = _dimensions(node) or self._computed(node, model, credit)
            if arrays is None:
                continue
            for output, array in zip(node.outputs, arrays, strict=True):
                if output.name and output.uses():
                    editor.freeze(output, ir.tensor(array, name=output.name))
            graph.remove(node, safe=True)
            changes += 1
        return changes

    def _computed(
        self, node: ir.Node, model: ir.Model, credit: dict[ir.Value, int]
    ) -> list[Array] | None:
        """The outputs of a node of constants, unless they would make the model larger."""
        if not _is_constant(node) or node.op_type in KEPT or subgraphs(node):
            return None
        dying = {value for value in node.inputs if value is not None and _dies(value)}
        growth = TABLE_BYTES if is_op(node, *TABLES) else self.options.growth
        allowed = growth + sum(credit.setdefault(v, nbytes(v) or 0) for v in dying)
        expected = _expected_bytes(node)
        if expected is not None and expected > allowed:
            return None
        try:
            arrays = _evaluate(node, model)
        except EngineError:
            # The engine's words may hold a temporary path, and notes are part of the identity.
            self.context.notes.append(f"{node.name}: not folded, the engine cannot evaluate it")
            return None
        size = sum(array.nbytes for array in arrays)
        if size > allowed:
            return None
        for value in dying:
            paid = min(size, credit[value])
            credit[value] -= paid
            size -= paid
        return arrays


def _is_constant(node: ir.Node) -> bool:
    """Whether a standard node reads constants only, of types that numpy and the engine share."""
    if node.domain or (not node.inputs and not node.attributes):
        return False
    tensors = [tensor_of(value) for value in node.inputs if value is not None]
    return all(tensor is not None and tensor.dtype in COMPUTABLE for tensor in tensors)


def _dies(value: ir.Value) -> bool:
    """Whether nothing will use a constant once all nodes of constants are folded."""
    return not value.is_graph_output() and all(_is_constant(use.node) for use in value.uses())


def _expected_bytes(node: ir.Node) -> int | None:
    """Bytes of a node's outputs, as far as that can be known without computing them."""
    if is_op(node, "ConstantOfShape"):
        shape = constant(node.inputs[0])
        fill = node.attributes.get_tensor("value")
        if shape is not None:
            return int(np.prod(shape)) * (4 if fill is None else fill.nbytes)
    sizes = [nbytes(output) for output in node.outputs]
    return None if None in sizes else sum(size or 0 for size in sizes)


def _dimensions(node: ir.Node) -> list[Array] | None:
    """The output of ``Size``, ``Shape``, or a part of ``Shape``, where the dimensions are known."""
    if is_op(node, "Size"):
        shape = static_shape(node.inputs[0])
        return None if shape is None else [np.array(np.prod(shape, dtype=np.int64))]
    if not is_op(node, "Shape", "Gather", "Slice") or node.outputs[0].dtype == ir.DataType.INT32:
        return None
    array = known(trace(node.outputs[0]))
    return None if array is None else [array]


def _evaluate(node: ir.Node, model: ir.Model) -> list[Array]:
    """Computes one node of constants with the runtime's engine.

    Raises:
        EngineError: The engine refused the node or failed on these values.
    """
    feeds: dict[str, Array] = {}
    inputs: list[ir.Value | None] = []
    for index, value in enumerate(node.inputs):
        array = constant(value)
        if value is None or array is None:
            inputs.append(None)
            continue
        feeds[f"input{index}"] = array
        tensor_type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        inputs.append(ir.Value(name=f"input{index}", type=tensor_type, shape=ir.Shape(array.shape)))
    outputs = [ir.Value(name=f"output{index}") for index in range(len(node.outputs))]
    copy = ir.Node("", node.op_type, inputs, tuple(node.attributes.values()), outputs=outputs)
    graph = ir.Graph(
        [value for value in inputs if value is not None],
        outputs,
        nodes=[copy],
        opset_imports={"": model.opset_imports.get("", 1)},
        name="constants",
    )
    with opened(
        ir.Model(graph, ir_version=model.ir_version), SessionOptions(optimize=False)
    ) as session:
        results = session.run(feeds)
    return [results[f"output{index}"] for index in range(len(outputs))]
