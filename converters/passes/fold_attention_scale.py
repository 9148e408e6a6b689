"""Constant factors folded into the weights of the layer before them.

Attention multiplies queries, keys or scores by ``1 / √d``, on every call and over
tensors that grow with the sequence. The factor is linear, so it moves back
through transposes, reshapes and the product of queries and keys into the query
projection's weight and bias, where it costs nothing.
"""

from __future__ import annotations

import onnx_ir as ir

from converters.passes.base import GraphPass
from converters.passes.graph_tools import (
    Editor,
    constant,
    is_op,
    only_consumer,
    other_input,
    same_rank,
    scalar,
)

# Operators that commute with a factor on their first input.
MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
LAYERS = ("MatMul", "Gemm", "Conv", "ConvTranspose")


class FoldAttentionScale(GraphPass):
    """Folds multiplication and division by a number into constant weights."""

    name = "fold-attention-scale"

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Rewrites one graph."""
        editor = Editor(graph, model)
        changes = 0
        for node in graph:
            changes += _fold(node, editor)
        if changes:
            editor.prune()
        return changes


def _fold(node: ir.Node, editor: Editor) -> bool:
    source, factor = _scaled(node)
    if source is None or factor is None or not same_rank(source, node.outputs[0]):
        return False
    scalable = _scalable(source, node)
    if scalable is None:
        return False
    for layer, index in scalable:
        old = layer.inputs[index]
        array = constant(old)
        assert old is not None
        assert array is not None
        scaled = (array * array.dtype.type(factor)).astype(array.dtype)
        layer.replace_input_with(index, editor.initializer(f"{old.name}_scaled", scaled))
    editor.redirect(node.outputs[0], source)
    editor.graph.remove(node, safe=True)
    return True


def _scaled(node: ir.Node) -> tuple[ir.Value | None, float | None]:
    """What a node multiplies by a number, and the number."""
    if is_op(node, "Mul"):
        for value in node.inputs:
            factor = scalar(value)
            if factor is not None:
                return other_input(node, value), factor
    elif is_op(node, "Div"):
        divisor = scalar(node.inputs[1])
        if divisor:
            return node.inputs[0], 1 / divisor
    return None, None


def _scalable(source: ir.Value, user: ir.Node) -> list[tuple[ir.Node, int]] | None:
    """Constant inputs that scale ``source`` when all of them are scaled.

    Nothing but ``user`` may see ``source``, nor anything else what lies between
    ``source`` and those inputs.
    """
    node = source.producer()
    if node is None or node.graph is not user.graph or only_consumer(source) is not user:
        return None
    if is_op(node, *MOVES) and node.inputs[0] is not None:
        return _scalable(node.inputs[0], node)
    if is_op(node, "Add"):
        return _added(node)
    if is_op(node, *LAYERS):
        own = [index for index in (1, 2) if len(node.inputs) > index and node.inputs[index]]
        if all(_is_weight(node.inputs[index]) for index in own):
            return [(node, index) for index in own]
    if is_op(node, "MatMul"):
        for value in node.inputs:
            found = _scalable(value, node) if value is not None else None
            if found is not None:
                return found
    return None


def _added(node: ir.Node) -> list[tuple[ir.Node, int]] | None:
    """The same for a sum with a constant, which has to be scaled as well."""
    for index, value in enumerate(node.inputs):
        rest = other_input(node, value)
        if rest is not None and _is_weight(value):
            found = _scalable(rest, node)
            return None if found is None else [*found, (node, index)]
    return None


def _is_weight(value: ir.Value | None) -> bool:
    array = constant(value)
    return array is not None and array.dtype.kind == "f"
