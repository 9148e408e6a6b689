"""Target shapes computed at run time become constants.

``Reshape`` copies a dimension where its shape says 0, so a target shape whose
entries are constants and dimensions of the reshaped tensor at the same place is
itself a constant: ``[0, 0, heads, size]``. That is shown entry by entry; one
entry of unknown origin may be left to ``Reshape`` as -1 where all others are
positive constants.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters.passes.base import GraphPass
from converters.passes.dimensions import Dim, Entries, trace
from converters.passes.graph_tools import Editor, constant, is_op

Integers = NDArray[np.int64]

COPY, INFER = 0, -1


class ConstantReshape(GraphPass):
    """Gives ``Reshape`` a constant shape where that provably is the one computed."""

    name = "constant-reshape"

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Rewrites one graph."""
        editor = Editor(graph, model)
        changes = 0
        for node in graph:
            if not is_op(node, "Reshape") or constant(node.inputs[1]) is not None:
                continue
            data, entries = node.inputs[0], trace(node.inputs[1])
            if data is None or entries is None or entries.ndim != 1:
                continue
            if node.attributes.get_int("allowzero", 0):
                continue
            shape = _constant_shape(entries, data)
            if shape is not None:
                value = editor.initializer(f"{node.name or 'reshape'}_shape", shape)
                node.replace_input_with(1, value)
                changes += 1
        if changes:
            editor.prune()
        return changes


def _constant_shape(entries: Entries, data: ir.Value) -> Integers | None:
    shape = [_entry(entry, data, axis) for axis, entry in enumerate(entries)]
    unknown = shape.count(None)
    if unknown and _all_copied(entries, data):
        shape = [COPY if isinstance(entry, Dim) else entry for entry in entries]
    # Next to a copied dimension, which may be 0, an inferred one would be ambiguous.
    elif unknown > 1 or (unknown and not all(size is None or size > 0 for size in shape)):
        return None
    return np.array([INFER if size is None else size for size in shape], dtype=np.int64)


def _entry(entry: int | Dim | None, data: ir.Value, axis: int) -> int | None:
    if isinstance(entry, Dim):
        return COPY if entry.equals(data, axis) else None
    return entry


def _all_copied(entries: Entries, data: ir.Value) -> bool:
    """Whether the sizes force every dimension in ``entries`` to be ``data``'s at that place.

    Broadcasting can only make a dimension larger. If all of them are the data's own or
    were broadcast to them, and the rest are equal numbers on both sides, then the
    products, which ``Reshape`` keeps, are equal only if none of them grew.
    """
    if data.shape is None or any(entry is None for entry in entries):
        return False
    copied = {axis for axis, entry in enumerate(entries) if isinstance(entry, Dim)}
    rest = [size for axis, size in enumerate(data.shape) if axis not in copied]
    known = [size for size in rest if isinstance(size, int)]
    numbers = [entry for entry in entries if isinstance(entry, int)]
    if len(known) < len(rest) or min(numbers, default=1) <= 0:
        return False
    if math.prod(known) != math.prod(numbers):
        return False
    rank = len(data.shape)
    return all(axis < rank and entries[axis].reaches(data, axis) for axis in copied)
