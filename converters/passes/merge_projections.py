"""One product for the queries, keys and values of attention, which share their input.

Before an ``Attention`` node three dense layers become one and a split. Where attention
is written out, each with its own reshape and transpose, they become one dense
layer, reshape and transpose over three times as many heads, and a split of
whole heads. Dynamic int8 then quantizes the shared input once and not three times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converters.passes.base import GraphPass
from converters.passes.dense import Dense, layer_of, match
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
        written_out = [group for group in groups.values() if len(group) > 1]
        for group in written_out:
            _merge_heads(group, editor)
        fused = [group for node in graph for group in _feeding(node)]
        for layers in fused:
            _merge_layers(layers, editor)
        if written_out or fused:
            editor.prune()
        return sum(len(group) - 1 for group in written_out) + sum(len(group) - 1 for group in fused)


def _feeding(node: ir.Node) -> list[list[Dense]]:
    """Dense layers that share their input, and whose results only this ``Attention`` reads."""
    groups: dict[tuple[object, ...], list[Dense]] = {}
    for value in node.inputs[:3] if is_op(node, "Attention") else ():
        layer = layer_of(value)
        if layer is None or not is_op(layer.node, "MatMul") or layer.node.graph is not node.graph:
            continue
        shape, alone = layer.output.shape, only_consumer(layer.output) is node
        if alone and len(layer.weight.uses()) == 1 and shape is not None and len(shape) == 3:
            groups.setdefault((layer.data, layer.bias is None), []).append(layer)
    return [group for group in groups.values() if len(group) > 1]


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


def _merge_layers(layers: list[Dense], editor: Editor) -> None:
    name = layers[0].node.name or "projection"
    widths = [layer.array().shape[1] for layer in layers]
    parts = _split(_product(layers, editor), widths, layers[0].node, name, editor, axis=2)
    for layer, part in zip(layers, parts, strict=True):
        editor.redirect(layer.output, part)


def _merge_heads(group: list[_Projection], editor: Editor) -> None:
    before = group[0].layer.node
    name = before.name or "projection"
    merged = _product([projection.layer for projection in group], editor)
    heads, channels = group[0].heads
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
    parts = _split(by_head, [heads] * len(group), before, name, editor, axis=1)
    for projection, value in zip(group, parts, strict=True):
        if projection.is_transposed:
            value = editor.node(
                "Transpose", [value], before=before, name=f"{name}_keys", perm=[0, 1, 3, 2]
            )
        editor.redirect(projection.transpose.outputs[0], value)


def _product(layers: list[Dense], editor: Editor) -> ir.Value:
    """One dense layer with the columns of all; it goes by the first one's name."""
    first = layers[0]
    before, name = first.node, first.node.name or "projection"
    weight = np.concatenate([layer.array() for layer in layers], axis=1)
    merged = editor.node(
        "MatMul",
        [first.data, editor.initializer(f"{name}_merged", weight)],
        before=before,
        name=name,
    )
    # Recipes exclude it by that name.
    product, first.node.name = merged.producer(), editor.fresh(f"{name}_replaced")
    assert product is not None
    product.name = name
    biases = [layer.bias for layer in layers if layer.bias is not None]
    if biases:
        bias = editor.initializer(f"{name}_merged_bias", np.concatenate(biases))
        merged = editor.node("Add", [merged, bias], before=before, name=f"{name}_add")
    return merged


def _split(
    value: ir.Value, sizes: list[int], before: ir.Node, name: str, editor: Editor, *, axis: int
) -> list[ir.Value]:
    parts = [ir.Value(name=editor.fresh(f"{name}_part")) for _ in sizes]
    split = editor.initializer(f"{name}_sizes", np.array(sizes, np.int64))
    node = ir.node(
        "Split", [value, split], {"axis": axis}, name=editor.fresh(f"{name}_split"), outputs=parts
    )
    editor.graph.insert_before(before, node)
    return parts
