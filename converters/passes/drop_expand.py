"""What is expanded only to meet a tensor that large is left to broadcasting.

Exporters expand an attention mask to every query before they turn it into numbers to
add to the scores: four operators over [batch, 1, query, key] instead of
[batch, 1, 1, key]. Where everything that reads an expanded tensor works element by
element, and ends at operands that provably are as large, the ``Expand`` goes.
"""

from __future__ import annotations

import onnx_ir as ir

from converters.passes.base import GraphPass
from converters.passes.dimensions import Dim
from converters.passes.graph_tools import Editor, is_op, scalar

ELEMENTWISE = (
    "Add", "And", "Cast", "Div", "Equal", "Greater", "Less", "Mul", "Neg", "Not", "Or", "Sub",
    "Where",
)  # fmt: skip


class DropExpand(GraphPass):
    """Removes ``Expand`` where broadcasting does the same later."""

    name = "drop-expand"

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Rewrites one graph."""
        editor = Editor(graph, model)
        changes = 0
        for node in graph:
            if not is_op(node, "Expand"):
                continue
            data, wide = node.inputs[0], node.outputs[0]
            between = _until_as_large(wide, graph)
            if data is None or between is None or _rank(data) != _rank(wide):
                continue
            for value in between:
                value.shape = None  # what it was is not what it is
            wide.replace_all_uses_with(data)
            changes += 1
        if changes:
            editor.prune()
        return changes


def _until_as_large(wide: ir.Value, graph: ir.Graph) -> list[ir.Value] | None:
    """Values that shrink with ``wide``; ``None`` if that would be seen."""
    rank = 0 if wide.shape is None else len(wide.shape)
    small = [wide]
    # In topological order, so that what is not found by then keeps its size.
    for node in graph:
        if not any(value in small for value in node.inputs):
            continue
        if not is_op(node, *ELEMENTWISE):
            return None
        others = [value for value in node.inputs if value not in small]
        if any(_covers(value, wide, rank) for value in others):
            continue
        if not all(scalar(value) is not None and _rank(value) <= rank for value in others):
            return None
        small.append(node.outputs[0])
    seen_outside = any(
        value.is_graph_output() or any(use.node.graph is not graph for use in value.uses())
        for value in small
    )
    return None if seen_outside else small[1:]


def _covers(operand: ir.Value | None, wide: ir.Value, rank: int) -> bool:
    """Whether an operand has every dimension that ``wide`` has."""
    if operand is None or operand.shape is None or len(operand.shape) != rank:
        return False
    return all(Dim(wide, axis).fits(operand, axis) for axis in range(rank))


def _rank(value: ir.Value | None) -> int:
    return 0 if value is None or value.shape is None else len(value.shape)
