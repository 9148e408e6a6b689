"""One product for the queries, keys and values of attention, which share their input.

Three dense layers, each with its own reshape and transpose, become one dense
layer, reshape and transpose over three times as many heads, and a split of
whole heads. Dynamic int8 then quantizes the shared input once and not three times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converters.passes.base import GraphPass
from converters.passes.dense import Dense, match
from converters.passes.graph_tools import Editor, constant, is_op, only_consumer

BY_HEAD = (0, 2, 1, 3)  # [batch, position, head, channel] -> [batch, head, position, channel]
TRANSPOSED = (0, 2, 3, 1)  # the same with the last two exchanged, as keys are multiplied


@dataclass(frozen=True)
class _Projection:
    """A dense layer whose result is cut into heads."""

    layer: Dense
    heads: tuple[int, int]
    transpose: ir.Node
    is_transposed: bool

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal for projections that one product can do."""
        return self.layer.data, self.layer.array().shape, self.heads, self.layer.bias is None


class MergeProjections(GraphPass):
    """Merges dense layers that read one activation and are cut into the same heads."""

    name = "merge-projections"

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Merges in one graph; returns the number of products saved."""
        editor = Editor(graph, model)
        groups: dict[tuple[object, ...], list[_Projection]] = {}
        for node in graph:
            projection = _projection(node) if is_op(node, "MatMul") else None
            if projection is not None:
                groups.setdefault(projection.kind, []).append(projection)
        found = [group for group in groups.values() if len(group) > 1]
        for group in found:
            _merge(group, editor)
        if found:
            editor.prune()
        return sum(len(group) - 1 for group in found)


def _projection(node: ir.Node) -> _Projection | None:
    layer = match(node)
    if not isinstance(layer, Dense) or len(layer.weight.uses()) > 1:
        return None
    reshape = only_consumer(layer.output)
    if (
        reshape is None
        or not is_op(reshape, "Reshape")
        or reshape.attributes.get_int("allowzero", False)
    ):
        return None
    shape = constant(reshape.inputs[1])
    if (
        shape is None
        or shape.shape != (4,)
        or tuple(shape[:2]) not in ((0, 0), (0, -1))
        or min(shape[2:]) < 1
    ):
        return None
    transpose = only_consumer(reshape.outputs[0])
    if transpose is None or not is_op(transpose, "Transpose"):
        return None
    order = tuple(transpose.attributes.get_ints("perm", ()))
    if order not in (BY_HEAD, TRANSPOSED) or transpose.outputs[0].is_graph_output():
        return None
    return _Projection(layer, (int(shape[2]), int(shape[3])), transpose, order == TRANSPOSED)


def _merge(group: list[_Projection], editor: Editor) -> None:
    first = group[0].layer
    before, name = first.node, first.node.name or "projection"
    heads, channels = group[0].heads
    weight = np.concatenate([projection.layer.array() for projection in group], axis=1)
    merged = editor.node(
        "MatMul",
        [first.data, editor.initializer(f"{name}_merged", weight)],
        before=before,
        name=name,
    )
    # The merged node goes by the first one's name, by which recipes exclude it.
    product, first.node.name = merged.producer(), editor.fresh(f"{name}_replaced")
    assert product is not None
    product.name = name
    biases = [p.layer.bias for p in group if p.layer.bias is not None]
    if biases:
        bias = editor.initializer(f"{name}_merged_bias", np.concatenate(biases))
        merged = editor.node("Add", [merged, bias], before=before, name=f"{name}_add")
    shape = np.array([0, 0, len(group) * heads, channels], np.int64)
    cut = editor.node(
        "Reshape",
        [merged, editor.initializer(f"{name}_shape", shape)],
        before=before,
        name=f"{name}_heads",
    )
    by_head = editor.node(
        "Transpose", [cut], before=before, name=f"{name}_by_head", perm=list(BY_HEAD)
    )
    sizes = editor.initializer(f"{name}_sizes", np.full(len(group), heads, np.int64))
    parts = [ir.Value(name=editor.fresh(f"{name}_part")) for _ in group]
    split = ir.node(
        "Split", [by_head, sizes], {"axis": 1}, name=editor.fresh(f"{name}_split"), outputs=parts
    )
    editor.graph.insert_before(before, split)
    for projection, part in zip(group, parts, strict=True):
        value = part
        if projection.is_transposed:
            value = editor.node(
                "Transpose", [part], before=before, name=f"{name}_keys", perm=[0, 1, 3, 2]
            )
        editor.redirect(projection.transpose.outputs[0], value)
