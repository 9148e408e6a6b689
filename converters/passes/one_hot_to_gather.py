"""A one-hot matrix times a table becomes a look-up in the table.

``OneHot(x) @ W`` and ``Cast(Equal(x, 0 … depth-1)) @ W`` write and multiply
``depth`` numbers to pick one row. Whatever index is out of range picks a row of
zeros there; here it is clipped onto one that is appended to the table, so the
result is the same for every input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converters.passes.base import GraphPass
from converters.passes.graph_tools import (
    Editor,
    constant,
    is_op,
    only_consumer,
    producer,
    scalar,
)

# Clip takes integers from this opset on.
OPSET = 12
INDICES = (ir.DataType.INT32, ir.DataType.INT64)


@dataclass(frozen=True)
class _OneHot:
    """What a one-hot matrix encodes.

    Attributes:
        indices: int32 or int64.
        depth: Number of classes.
        wraps: Whether -1 means the last class, as ``OneHot`` has it.
        trailing: Whether ``indices`` has a last axis of size 1 that the matrix replaces.
    """

    indices: ir.Value
    depth: int
    wraps: bool
    trailing: bool


class OneHotToGather(GraphPass):
    """Replaces the product of a one-hot matrix and a constant table by ``Gather``."""

    name = "one-hot-to-gather"

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Rewrites one graph."""
        if model.opset_imports.get("", 0) < OPSET:
            return 0
        editor = Editor(graph, model)
        changes = 0
        for node in graph:
            if is_op(node, "MatMul"):
                changes += _replace(node, editor)
        if changes:
            editor.prune()
        return changes


def _replace(product: ir.Node, editor: Editor) -> bool:
    matrix, table = product.inputs[0], constant(product.inputs[1])
    if matrix is None or table is None or table.ndim != 2 or only_consumer(matrix) is None:
        return False
    found = _one_hot(matrix)
    # Infinity times the zeros of a one-hot row would have been NaN.
    if found is None or found.depth != table.shape[0] or not np.isfinite(table).all():
        return False
    name = product.name or "one_hot"
    zero = np.zeros((1, table.shape[1]), dtype=table.dtype)
    rows = editor.initializer(f"{name}_table", np.concatenate([table, zero]))
    indices = _in_range(found, product, name, editor)
    result = editor.node("Gather", [rows, indices], before=product, name=f"{name}_row", axis=0)
    editor.redirect(product.outputs[0], result)
    return True


def _in_range(found: _OneHot, before: ir.Node, name: str, editor: Editor) -> ir.Value:
    """Indices of rows of the extended table; -1 and ``depth`` both are its row of zeros."""
    assert found.indices.dtype is not None
    dtype = found.indices.dtype.numpy()

    def number(suffix: str, value: int) -> ir.Value:
        return editor.initializer(f"{name}_{suffix}", np.array(value, dtype=dtype))

    indices, depth = found.indices, number("depth", found.depth)
    if found.trailing:
        axis = editor.initializer(f"{name}_axis", np.array([-1]))
        indices = editor.node("Squeeze", [indices, axis], before=before, name=f"{name}_indices")
    lowest = number("lowest", -found.depth - 1 if found.wraps else -1)
    clipped = editor.node(
        "Clip", [indices, lowest, depth], before=before, name=f"{name}_clipped", like=indices
    )
    if not found.wraps:
        return clipped
    less = editor.node("Less", [clipped, number("zero", 0)], before=before, name=f"{name}_negative")
    shifted = editor.node("Add", [clipped, depth], before=before, name=f"{name}_shifted")
    return editor.node("Where", [less, shifted, clipped], before=before, name=f"{name}_wrapped")


def _one_hot(matrix: ir.Value) -> _OneHot | None:
    node = matrix.producer()
    if is_op(node, "OneHot") and node is not None:
        return _from_operator(node)
    if is_op(node, "Cast") and node is not None and node.inputs[0] is not None:
        equal = producer(node.inputs[0], "Equal")
        if equal is not None and only_consumer(node.inputs[0]) is node:
            return _from_comparison(equal)
    return None


def _from_operator(node: ir.Node) -> _OneHot | None:
    indices, depth, values = node.inputs[0], scalar(node.inputs[1]), constant(node.inputs[2])
    if indices is None or indices.dtype not in INDICES or indices.shape is None:
        return None
    axis = node.attributes.get_int("axis", -1)
    if depth is None or values is None or axis not in (-1, len(indices.shape)):
        return None
    if values.tolist() != [0, 1]:
        return None
    return _OneHot(indices, int(depth), wraps=True, trailing=False)


def _from_comparison(equal: ir.Node) -> _OneHot | None:
    """``Equal`` of indices [..., 1] and the row 0 … depth-1."""
    for indices, classes in (tuple(equal.inputs), tuple(reversed(equal.inputs))):
        row = constant(classes)
        if row is None or indices is None or indices.dtype not in INDICES:
            continue
        shape = indices.shape
        if shape is None or len(shape) < max(2, row.ndim) or shape[-1] != 1:
            continue
        if (
            row.ndim
            and row.size == row.shape[-1]
            and (row == np.arange(row.size).reshape(row.shape)).all()
        ):
            return _OneHot(indices, row.size, wraps=False, trailing=True)
    return None
