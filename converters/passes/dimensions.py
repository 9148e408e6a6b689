"""Traces where the integers in a shape tensor come from.

Exporters compute target shapes at run time (``Shape -> Gather -> Unsqueeze ->
Concat``) even where every entry is a constant or a dimension copied from an
input. Tracing such a tensor entry by entry is what lets a pass replace the
computation by a constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters.passes.graph_tools import constant, integers, is_op, static_shape

SAME_SHAPE = {"Cast", "Gelu", "Identity", "LayerNormalization", "Neg", "Relu", "Softmax", "Tanh"}
BROADCAST = {"Add", "Div", "Mul", "Pow", "Sub", "Sum", "Where"}


@dataclass(frozen=True)
class Dim:
    """Dimension ``axis`` of ``value``, which is not known before run time."""

    value: ir.Value
    axis: int

    def equals(self, value: ir.Value, axis: int) -> bool:
        """Whether it provably is dimension ``axis`` of ``value`` as well.

        The same symbolic name means the same size: that is what names are for.
        """
        if self.value is value and self.axis == axis:
            return True
        mine, other = _symbol(self.value, self.axis), _symbol(value, axis)
        return mine is not None and mine == other

    def reaches(self, value: ir.Value, axis: int) -> bool:
        """Whether dimension ``axis`` of ``value`` is this one, or this one grown by broadcasting.

        Follows shape-preserving, broadcasting and permuting operators backwards.
        """
        seen: set[tuple[ir.Value, int]] = set()
        pending = [(value, axis)]
        while pending:
            place = pending.pop()
            if self.equals(*place):
                return True
            if place not in seen:
                seen.add(place)
                pending.extend(_sources(*place))
        return False

    def fits(self, value: ir.Value, axis: int) -> bool:
        """Whether it provably is 1 or dimension ``axis`` of ``value``: broadcasts to that."""
        seen: set[tuple[ir.Value, int]] = set()
        pending = [(self.value, self.axis)]
        while pending:
            place = pending.pop()
            size = _static(*place)
            if size == 1 or place in seen:
                continue
            if size is not None and size == _static(value, axis):
                continue
            if size is None and Dim(*place).reaches(value, axis):
                continue
            seen.add(place)
            node, sources = place[0].producer(), _sources(*place)
            # A source of unknown rank could have the dimension too.
            if not sources or node is None or any(v and v.shape is None for v in node.inputs):
                return False
            pending.extend(sources)
        return True


# Entries are an ``int``, a :class:`Dim`, or ``None`` for a number of unknown origin.
Entries = NDArray[np.object_]


def trace(value: ir.Value | None) -> Entries | None:
    """The entries of an integer scalar or vector.

    Returns:
        An object array, 0-d or 1-d; ``None`` if not even the number of entries is known.
    """
    if value is None:
        return None
    array = constant(value)
    if array is not None:
        vector = array.ndim <= 1 and array.dtype.kind in "iu"
        return np.array(array.tolist(), dtype=object) if vector else None
    node = value.producer()
    rule = RULES.get(node.op_type) if node is not None and is_op(node, *RULES) else None
    entries = rule(node) if rule is not None and node is not None else None
    shape = static_shape(value)
    if entries is None and shape is not None and len(shape) <= 1:
        return np.full(shape, None, dtype=object)
    return entries


def known(entries: Entries | None) -> NDArray[np.int64] | None:
    """The entries as int64 if all of them are integers."""
    if entries is None or not all(isinstance(item, int) for item in entries.reshape(-1)):
        return None
    return entries.astype(np.int64)


def _symbol(value: ir.Value, axis: int) -> str | None:
    if value.shape is None or axis >= len(value.shape):
        return None
    dim = value.shape[axis]
    return dim.value if isinstance(dim, ir.SymbolicDim) else None


def _static(value: ir.Value, axis: int) -> int | None:
    dim = value.shape[axis] if value.shape is not None and axis < len(value.shape) else None
    return dim if isinstance(dim, int) else None


def _sources(value: ir.Value, axis: int) -> list[tuple[ir.Value, int]]:
    """Values with the dimension that ``value`` takes its own from, each with the axis there."""
    node = value.producer()
    if node is None or node.domain or not node.inputs or node.inputs[0] is None:
        return []
    first, rank = node.inputs[0], _rank(value)
    if node.op_type in SAME_SHAPE:
        return [(first, axis)]
    if node.op_type == "Transpose":
        perm = node.attributes.get_ints("perm", tuple(reversed(range(rank))))
        return [(first, perm[axis])] if axis < len(perm) else []
    if node.op_type == "Reshape":
        return _reshaped(node, axis)
    if node.op_type == "Expand":
        return _expanded(node, axis - rank)
    operands = [operand for operand in node.inputs if operand is not None]
    if node.op_type == "MatMul" and axis >= rank - 2:
        operands = [operands[axis - (rank - 2)]]
    elif node.op_type not in BROADCAST and node.op_type != "MatMul":
        return []
    aligned = [(operand, axis - (rank - _rank(operand))) for operand in operands]
    return [(operand, at) for operand, at in aligned if at >= 0]


def _reshaped(node: ir.Node, axis: int) -> list[tuple[ir.Value, int]]:
    """Where ``Reshape`` with a constant shape takes a dimension from."""
    data, shape = node.inputs[0], constant(node.inputs[1])
    if data is None or data.shape is None or shape is None or axis >= len(shape):
        return []
    if node.attributes.get_int("allowzero", 0) or shape[axis] > 0:
        return []
    if shape[axis] == 0:
        return [(data, axis)]
    # -1 is a dimension of its own if all others are copied or multiply to the same number.
    left = [at for at in range(len(data.shape)) if at >= len(shape) or shape[at] != 0]
    free = [at for at in left if not isinstance(data.shape[at], int)]
    static = math.prod(size for at in left if isinstance(size := data.shape[at], int))
    exact = len(free) == 1 and static == math.prod(int(size) for size in shape if size > 0)
    return [(data, free[0])] if exact else []


def _expanded(node: ir.Node, from_end: int) -> list[tuple[ir.Value, int]]:
    """Where ``Expand`` takes a dimension from: its input, and the shape where it says more."""
    data, entries = node.inputs[0], trace(node.inputs[1])
    if data is None or data.shape is None or entries is None or entries.ndim != 1:
        return []
    entry = entries[from_end] if -from_end <= len(entries) else 1
    if entry != 1 and not isinstance(entry, Dim):
        return []
    wanted = [(entry.value, entry.axis)] if isinstance(entry, Dim) else []
    at = _rank(data) + from_end
    return [*wanted, (data, at)] if at >= 0 else wanted


def _rank(value: ir.Value) -> int:
    return len(value.shape) if value.shape is not None else 0


def _shape(node: ir.Node) -> Entries | None:
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    entries = np.empty(len(value.shape), dtype=object)
    for axis, dim in enumerate(value.shape):
        entries[axis] = dim if isinstance(dim, int) else Dim(value, axis)
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
    return entries[start:end]


def _gather(node: ir.Node) -> Entries | None:
    entries, indices = trace(node.inputs[0]), constant(node.inputs[1])
    if entries is None or indices is None or entries.ndim != 1 or indices.ndim > 1:
        return None
    if indices.size and not -len(entries) <= indices.min() <= indices.max() < len(entries):
        return None
    picked = np.empty(indices.shape, dtype=object)
    picked[...] = entries[indices]
    return picked


def _slice(node: ir.Node) -> Entries | None:
    entries = trace(node.inputs[0])
    starts, ends = integers(node, "starts", 1), integers(node, "ends", 2)
    steps = integers(node, "steps", 4)
    if entries is None or entries.ndim != 1 or starts is None or ends is None:
        return None
    if steps is None and len(node.inputs) > 4 and node.inputs[4] is not None:
        return None
    return entries[starts[0] : ends[0] : steps[0] if steps else 1] if len(starts) == 1 else None


def _concat(node: ir.Node) -> Entries | None:
    parts = [trace(value) for value in node.inputs]
    if any(part is None or part.ndim != 1 for part in parts):
        return None
    return np.concatenate([part for part in parts if part is not None])


def _flattened(node: ir.Node) -> Entries | None:
    entries, shape = trace(node.inputs[0]), constant(node.inputs[1])
    return (
        entries.reshape(-1)
        if entries is not None and shape is not None and shape.tolist() == [-1]
        else None
    )


def _where(node: ir.Node) -> Entries | None:
    """Exporters guard target shapes: what is -1 becomes 1, and no dimension ever is -1."""
    equal = node.inputs[0].producer() if node.inputs[0] is not None else None
    if equal is None or not is_op(equal, "Equal"):
        return None
    parts = [trace(value) for value in (*equal.inputs, *node.inputs[1:])]
    if any(part is None for part in parts):
        return None
    left, right, yes, no = np.broadcast_arrays(*[part for part in parts if part is not None])
    chosen = np.empty(left.shape, dtype=object)
    for place in np.ndindex(left.shape):
        same = _same(left.item(place), right.item(place))
        chosen[place] = None if same is None else (yes if same else no)[place]
    return chosen


def _same(first: int | Dim | None, second: int | Dim | None) -> bool | None:
    """Whether two entries are equal, where that is known."""
    if isinstance(first, int) and isinstance(second, int):
        return first == second
    numbers = [entry for entry in (first, second) if isinstance(entry, int)]
    has_size = isinstance(first, Dim) or isinstance(second, Dim)
    return False if has_size and numbers and numbers[0] < 0 else None


def _vector(node: ir.Node) -> Entries | None:
    entries = trace(node.inputs[0])
    return None if entries is None or entries.size != 1 else entries.reshape(1)


def _number(node: ir.Node) -> Entries | None:
    entries = trace(node.inputs[0])
    return None if entries is None or entries.size != 1 else entries.reshape(())


def _cast(node: ir.Node) -> Entries | None:
    integer = node.attributes.get_int("to", 0) in (ir.DataType.INT32, ir.DataType.INT64)
    return trace(node.inputs[0]) if integer else None


RULES: dict[str, Callable[[ir.Node], Entries | None]] = {
    "Shape": _shape,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _vector,
    "Squeeze": _number,
    "Cast": _cast,
    "Reshape": _flattened,
    "Where": _where,
    "Identity": lambda node: trace(node.inputs[0]),
}
