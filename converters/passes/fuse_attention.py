"""Attention written out as primitive operators becomes one ``Attention`` node.

Recognised: ``softmax(Q Kᵀ + mask) V`` where queries, keys and values are cut into
heads by ``Reshape`` and ``Transpose``, and put together again the same way. The
kernel cuts heads and adds the mask on the way into its products, which saves six
passes over memory per layer. The operator is standard from opset 23 on; a graph
with something to fuse is raised to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from converters.passes.base import GraphPass, each_graph
from converters.passes.dense import layer_of
from converters.passes.dimensions import Dim
from converters.passes.graph_tools import (
    Editor,
    constant,
    is_op,
    only_consumer,
    other_input,
    producer,
)
from converters.passes.upgrade_opset import UpgradeOpset, UpgradeOptions

OPSET = 23
IR_VERSION = 11  # the first that may import that opset
BY_HEAD = (0, 2, 1, 3)  # [batch, position, head, channel] <-> [batch, head, position, channel]
KEYS = (0, 2, 3, 1)  # the same with the last two exchanged, as keys are multiplied
SWAPPED = (0, 1, 3, 2)


@dataclass(frozen=True)
class _Attention:
    """What one ``Attention`` node computes; queries, keys and values are [batch, position, …]."""

    query: ir.Value
    key: ir.Value
    value: ir.Value
    mask: ir.Value | None
    heads: int
    result: ir.Value


class FuseAttention(GraphPass):
    """Replaces written-out attention by one node."""

    name = "fuse-attention"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Raises the opset only where there is something to fuse."""
        if not any(_match(node) for graph in each_graph(model.graph) for node in graph):
            return ir.passes.PassResult(model, modified=False)
        UpgradeOpset(UpgradeOptions(target=OPSET), self.context)(model)
        if model.opset_imports.get("", 0) < OPSET:
            return ir.passes.PassResult(model, modified=False)
        model.ir_version = max(model.ir_version, IR_VERSION)
        return super().call(model)

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Rewrites one graph."""
        editor = Editor(graph, model)
        masks: dict[tuple[object, ...], ir.Value] = {}
        changes = 0
        for node in graph:
            found = _match(node)
            if found is not None:
                _fuse(found, node, editor, masks)
                changes += 1
        if changes:
            editor.prune()
        return changes


def _fuse(
    found: _Attention, softmax: ir.Node, editor: Editor, masks: dict[tuple[object, ...], ir.Value]
) -> None:
    name = softmax.name or "attention"
    inputs = [found.query, found.key, found.value]
    last = found.result.producer()
    assert last is not None
    if found.mask is not None:
        sizes = found.mask, _size(found.query, 1), _size(found.key, 1)
        if sizes not in masks:
            masks[sizes] = _full(found, softmax, name, editor)
        inputs.append(masks[sizes])
    fused = editor.node(
        "Attention",
        inputs,
        before=last,
        name=f"{name}_attention",
        q_num_heads=found.heads,
        kv_num_heads=found.heads,
        scale=1.0,
    )
    editor.redirect(found.result, fused)


def _full(found: _Attention, before: ir.Node, name: str, editor: Editor) -> ir.Value:
    """The mask with a row for every query and a column for every key, which engines insist on."""
    mask = found.mask
    assert mask is not None
    at = [_size(found.query, 1), _size(found.key, 1)]
    if mask.shape is not None and [_size(mask, axis) for axis in (-2, -1)] == at:
        return mask
    lengths = [
        editor.node("Shape", [value], before=before, name=f"{name}_length", start=1, end=2)
        for value in map(_before_layer, (found.query, found.key))
    ]
    shape = editor.node("Concat", lengths, before=before, name=f"{name}_lengths", axis=0)
    return editor.node("Expand", [mask, shape], before=before, name=f"{name}_mask")


def _before_layer(value: ir.Value) -> ir.Value:
    """A value as long, so that ``Attention`` stays the only reader of a dense layer."""
    layer = layer_of(value)
    if layer is None or layer.data.shape is None or len(layer.data.shape) != 3:
        return value
    return layer.data


def _match(softmax: ir.Node) -> _Attention | None:
    """Attention around a ``Softmax``."""
    if not is_op(softmax, "Softmax") or softmax.attributes.get_int("axis", -1) not in (-1, 3):
        return None
    mixed = only_consumer(softmax.outputs[0])
    scores = softmax.inputs[0]
    if scores is None or scores.dtype != ir.DataType.FLOAT or not is_op(mixed, "MatMul"):
        return None
    assert mixed is not None
    if mixed.inputs[0] is not softmax.outputs[0]:
        return None
    for product, mask in _addends(scores):
        query = _heads(product.inputs[0], BY_HEAD)
        key = _heads(product.inputs[1], KEYS)
        value, result = _heads(mixed.inputs[1], BY_HEAD), _merged(mixed.outputs[0])
        if query is None or key is None or value is None or result is None:
            continue
        inputs = [query[0], key[0], value[0]]
        (heads, channels), widths = query[1], value[1]
        if key[1] != (heads, channels) or widths[0] != heads or result[1] != heads * widths[1]:
            continue
        if _have_one_batch(inputs) and (
            mask is None or _is_mask(mask, product.outputs[0], *inputs[:2])
        ):
            return _Attention(query[0], key[0], value[0], mask, heads, result[0])
    return None


def _addends(scores: ir.Value) -> list[tuple[ir.Node, ir.Value | None]]:
    """The product that scores are, alone or with a mask added to it."""
    product = _only(scores, "MatMul")
    if product is not None:
        return [(product, None)]
    add = _only(scores, "Add")
    if add is None:
        return []
    pairs = [(_only(value, "MatMul"), other_input(add, value)) for value in add.inputs]
    return [(product, mask) for product, mask in pairs if product is not None]


def _only(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that computes ``value``, if it is that operator and nothing else sees the value."""
    node = producer(value, op_type)
    seen_once = value is not None and only_consumer(value) is not None
    return node if seen_once else None


def _heads(
    value: ir.Value | None, order: tuple[int, ...]
) -> tuple[ir.Value, tuple[int, int]] | None:
    """What is cut into heads to give ``value``, and how many of how many channels."""
    transpose = producer(value, "Transpose")
    if transpose is None:
        return None
    perm = tuple(transpose.attributes.get_ints("perm", ()))
    if order == KEYS and perm == SWAPPED:
        return _heads(transpose.inputs[0], BY_HEAD)
    reshape = producer(transpose.inputs[0], "Reshape")
    if perm != order or reshape is None:
        return None
    sizes = _target(reshape, 4)
    data = reshape.inputs[0]
    if sizes is None or data is None or data.shape is None or len(data.shape) != 3:
        return None
    heads, channels = sizes[2:]
    if min(heads, channels) < 1 or data.shape[2] != heads * channels:
        return None
    return data, (heads, channels)


def _merged(value: ir.Value) -> tuple[ir.Value, int] | None:
    """What heads are put together to, and how many channels that has."""
    transpose = only_consumer(value)
    if transpose is None or not is_op(transpose, "Transpose"):
        return None
    reshape = only_consumer(transpose.outputs[0])
    if reshape is None or not is_op(reshape, "Reshape") or reshape.graph is not value.graph:
        return None
    sizes = _target(reshape, 3)
    if tuple(transpose.attributes.get_ints("perm", ())) != BY_HEAD or sizes is None:
        return None
    return reshape.outputs[0], sizes[2]


def _target(reshape: ir.Node, rank: int) -> tuple[int, ...] | None:
    """A constant target shape that keeps batch and position."""
    shape = constant(reshape.inputs[1])
    if shape is None or shape.shape != (rank,) or reshape.attributes.get_int("allowzero", False):
        return None
    sizes = tuple(int(size) for size in shape)
    return sizes if sizes[:2] in ((0, 0), (0, -1), (-1, 0)) else None


def _have_one_batch(values: Sequence[ir.Value]) -> bool:
    """Whether nothing is broadcast over the batch, which the operator does not do."""
    return len({_size(value, 0) for value in values}) == 1


def _is_mask(mask: ir.Value, product: ir.Value, query: ir.Value, key: ir.Value) -> bool:
    """Whether a mask grows to the scores' shape, and never makes them grow."""
    rank = 0 if mask.shape is None else len(mask.shape)
    if rank not in (2, 4):
        return False
    scores = [(query, 0), (product, 1), (query, 1), (key, 1)]
    places = enumerate(scores[-rank:])
    return all(Dim(mask, axis).fits(*place) for axis, place in places)


def _size(value: ir.Value, axis: int) -> object:
    """A dimension: its number, its name, or, where it has neither, the place itself."""
    dim = value.shape[axis] if value.shape is not None else None
    if isinstance(dim, int):
        return dim
    name = dim.value if dim is not None else None
    return name if name is not None else (value, axis)
