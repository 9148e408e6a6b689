"""Embedding tables in int8 with a scale per row.

A row is looked up in int8 and scaled after the lookup, so that only the rows in
use are ever widened: a quarter of the bytes and nothing lost in speed.
"""

from __future__ import annotations

import onnx_ir as ir

from converters import quantize
from converters.passes.base import GraphPass, Options, each_graph
from converters.passes.graph_tools import Editor, constant, is_op, tensor_of


class QuantizeEmbeddingOptions(Options, frozen=True, kw_only=True):
    """Options of ``quantize-embedding``.

    Attributes:
        min_bytes: Smaller tables stay in float.
        exclude: Names of lookups whose table stays in float.
    """

    min_bytes: int = 64 * 1024
    exclude: tuple[str, ...] = ()


class QuantizeEmbedding(GraphPass):
    """Stores tables that are only looked up in int8; tied tables stay as they are."""

    name = "quantize-embedding"
    options_type = QuantizeEmbeddingOptions
    is_rewrite = False

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Goes table by table: a table may be looked up in several graphs."""
        tables = [
            table
            for graph in each_graph(model.graph)
            for table in graph.initializers.values()
            if self._eligible(table)
        ]
        for table in tables:
            self._quantize(table, model)
        if tables:
            for graph in reversed(list(each_graph(model.graph))):
                Editor(graph, model).prune()
        return ir.passes.PassResult(model, modified=bool(tables))

    def _eligible(self, table: ir.Value) -> bool:
        tensor = tensor_of(table)
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) != 2:
            return False
        lookups = [node for node, index in table.uses() if _is_lookup(node, index)]
        if not lookups or tensor.nbytes < self.options.min_bytes:
            return False
        reason = None
        if len(lookups) < len(table.uses()) or table.is_graph_output():
            reason = "its table is also used as a matrix"
        elif any(node.name in self.options.exclude for node in lookups):
            reason = "excluded by the recipe"
        if reason:
            self.context.skip(lookups[0], reason)
        return reason is None

    def _quantize(self, table: ir.Value, model: ir.Model) -> None:
        array, owner = constant(table), table.graph
        assert array is not None and isinstance(owner, ir.Graph)
        quantized = quantize.symmetric(array, axis=0)
        editor = Editor(owner, model)
        rows = editor.initializer(f"{table.name}_int8", quantized.values)
        scales = editor.initializer(f"{table.name}_scale", quantized.scale[:, None])
        for node, _ in list(table.uses()):
            assert isinstance(node.graph, ir.Graph)
            _look_up(node, rows, scales, editor.on(node.graph))


def _is_lookup(node: ir.Node, index: int) -> bool:
    return is_op(node, "Gather") and index == 0 and not node.attributes.get_int("axis", 0)


def _look_up(node: ir.Node, rows: ir.Value, scales: ir.Value, editor: Editor) -> None:
    name, indices = node.name or node.outputs[0].name, node.inputs[1]
    row = editor.node("Gather", [rows, indices], before=node, name=f"{name}_int8")
    scale = editor.node("Gather", [scales, indices], before=node, name=f"{name}_scale")
    wide = editor.node("Cast", [row], before=node, name=f"{name}_cast", to=ir.DataType.FLOAT)
    output = editor.node(
        "Mul", [wide, scale], before=node, name=f"{name}_scaled", like=node.outputs[0]
    )
    editor.redirect(node.outputs[0], output)
    editor.graph.remove(node, safe=True)
