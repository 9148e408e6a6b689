"""Powers with small whole exponents become products, for engines without a fast ``Pow``."""

from __future__ import annotations

import onnx_ir as ir

from converters.passes.base import GraphPass, Options
from converters.passes.graph_tools import Editor, constant, is_op


class ExpandPowOptions(Options, frozen=True, kw_only=True):
    """Options of :class:`ExpandPow`.

    Attributes:
        largest: The largest exponent to expand; it costs that many products less one.
    """

    largest: int = 2


class ExpandPow(GraphPass):
    """Replaces ``Pow(x, 2)`` by ``Mul(x, x)``, and so on."""

    name = "expand-pow"
    options_type = ExpandPowOptions

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Rewrites one graph."""
        editor = Editor(graph, model)
        changes = 0
        for node in graph:
            exponent = _exponent(node)
            base = node.inputs[0] if node.inputs else None
            if base is None or not 2 <= exponent <= self.options.largest:
                continue
            product = base
            for _ in range(exponent - 1):
                product = editor.node("Mul", [product, base], before=node, name=f"{node.name}_mul")
            editor.redirect(node.outputs[0], product)
            changes += 1
        if changes:
            editor.prune()
        return changes


def _exponent(node: ir.Node) -> int:
    """The whole number in a 0-d constant exponent of a ``Pow``; 0 for anything else.

    One with axes might broadcast the base to another shape.
    """
    array = constant(node.inputs[1]) if is_op(node, "Pow") else None
    if array is None or array.ndim or not float(array).is_integer():
        return 0
    return int(array)
