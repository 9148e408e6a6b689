"""Arithmetic on sizes before anything runs.

Exporters compute target shapes operator by operator. What comes out is a vector of
numbers and of sizes that have names, and both are known here: such nodes need no
operator at all, and where a tensor of them is wanted it is looked up from an input.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters.litert.call import Call
from converters.litert.tensors import product_of
from converters.litert.values import Held

# Numbers, truth values and names, 0-d or 1-d.
Entries = NDArray[np.object_]
Rule = Callable[[Call, list[Entries]], Entries | None]

# Longer vectors hold data, not sizes.
LONGEST = 64
ABOUT_SHAPE = ("Shape", "Size")


def evaluate(call: Call) -> Held | None:
    """What stands for the result of a node that only computes sizes, else ``None``."""
    rule = RULES.get(call.node.op_type) if not call.node.domain else None
    if rule is None or len(call.node.outputs) != 1:
        return None
    operands = [_entries(call, index) for index in range(len(call.node.inputs))]
    first = operands[0] if operands else None
    if call.node.op_type not in ABOUT_SHAPE and (first is None or any(o is None for o in operands)):
        return None
    entries = rule(call, [operand for operand in operands if operand is not None])
    return None if entries is None else held_of(entries)


def held_of(entries: Entries) -> Held:
    """What stands for a vector of numbers and names."""
    if not any(isinstance(item, str) for item in entries.flat):
        array = entries.astype(bool if _is_truth(entries) else np.int32)
        return Held(array.shape, array=array)
    return Held(entries.shape, entries=entries)


def _is_truth(entries: Entries) -> bool:
    return entries.size > 0 and all(isinstance(item, bool) for item in entries.flat)


def _entries(call: Call, index: int) -> Entries | None:
    if not call.has(index):
        return None
    held = call.held(index)
    if held.entries is not None:
        return held.entries
    array = held.array
    if array is None or array.ndim > 1 or array.size > LONGEST or array.dtype.kind not in "ib":
        return None
    return np.array(array.tolist(), dtype=object)


def _shape(call: Call, _: list[Entries]) -> Entries | None:
    shape = call.shape()
    start = call.node.attributes.get_int("start", 0)
    end = call.node.attributes.get_int("end", len(shape))
    return None if None in shape else np.array(shape[start:end], dtype=object)


def _size(call: Call, _: list[Entries]) -> Entries | None:
    size = product_of(call.shape())
    return None if size is None else np.array(size, dtype=object)


def _not(call: Call, operands: list[Entries]) -> Entries | None:
    return np.logical_not(operands[0]) if _is_truth(operands[0]) else None


def _gather(call: Call, operands: list[Entries]) -> Entries | None:
    vector, indices = operands
    if vector.ndim != 1 or not all(isinstance(i, int) for i in indices.flat):
        return None
    picked = np.empty(indices.shape, dtype=object)
    picked[...] = vector[indices.astype(np.int64)]
    return picked


def _slice(call: Call, operands: list[Entries]) -> Entries | None:
    bounds = operands[1:]
    numbers = all(isinstance(item, int) for entries in bounds for item in entries.flat)
    if operands[0].ndim != 1 or not numbers or len(bounds) < 2 or bounds[0].size != 1:
        return None
    step = int(bounds[3].flat[0]) if len(bounds) > 3 else 1
    return operands[0][int(bounds[0].flat[0]) : int(bounds[1].flat[0]) : step]


def _concat(call: Call, operands: list[Entries]) -> Entries | None:
    return np.concatenate(operands) if all(entries.ndim == 1 for entries in operands) else None


def _vector(call: Call, operands: list[Entries]) -> Entries | None:
    return operands[0].reshape(1) if operands[0].ndim == 0 else None


def _scalar(call: Call, operands: list[Entries]) -> Entries | None:
    return operands[0].reshape(()) if operands[0].size == 1 else None


def _flat(call: Call, operands: list[Entries]) -> Entries | None:
    return operands[0].reshape(-1) if operands[1].size == 1 else None


def _cast(call: Call, operands: list[Entries]) -> Entries | None:
    whole = call.node.attributes.get_int("to", 0) in (ir.DataType.INT32, ir.DataType.INT64)
    return operands[0] if whole and not _is_truth(operands[0]) else None


def _constant(call: Call, operands: list[Entries]) -> Entries | None:
    value = call.node.attributes.get_tensor("value", None)
    (shape,) = operands
    if value is None or value.numpy().dtype.kind != "i" or len(shape) != 1:
        return None
    if not isinstance(shape[0], int) or shape[0] > LONGEST:
        return None
    return np.full((shape[0],), int(value.numpy().reshape(())), dtype=object)


def _where(call: Call, operands: list[Entries]) -> Entries | None:
    if any(isinstance(item, str) for item in operands[0].flat):
        return None
    condition = operands[0].astype(bool)
    return np.where(condition, operands[1], operands[2]) if condition.ndim <= 1 else None


def _each(function: Callable[[object, object], object]) -> Rule:
    """A rule for two operands that broadcast; it gives up where ``function`` does."""

    def rule(call: Call, operands: list[Entries]) -> Entries | None:
        shape = np.broadcast_shapes(*(entries.shape for entries in operands))
        pairs = zip(*(np.broadcast_to(entries, shape).flat for entries in operands), strict=True)
        found = [function(a, b) for a, b in pairs]
        if any(item is None for item in found):
            return None
        result = np.empty(len(found), dtype=object)
        result[:] = found
        return result.reshape(shape)

    return rule


def _equal(a: object, b: object) -> bool | None:
    if type(a) is type(b):
        return a == b if a == b or isinstance(a, int) else None
    # A size is never negative.
    return False if any(isinstance(item, int) and item < 0 for item in (a, b)) else None


def _add(a: object, b: object) -> object:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    return b if a == 0 else a if b == 0 else None


def _sub(a: object, b: object) -> object:
    if isinstance(a, int) and isinstance(b, int):
        return a - b
    return a if b == 0 else None


def _mul(a: object, b: object) -> object:
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    return b if a == 1 else a if b == 1 else None


def _div(a: object, b: object) -> object:
    if isinstance(a, int) and isinstance(b, int) and b:
        return int(a / b)
    return a if b == 1 else None


RULES: dict[str, Rule] = {
    "Shape": _shape,
    "Size": _size,
    "Not": _not,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _vector,
    "Squeeze": _scalar,
    "Reshape": _flat,
    "Cast": _cast,
    "Identity": lambda call, operands: operands[0],
    "ConstantOfShape": _constant,
    "Where": _where,
    "Equal": _each(_equal),
    "Add": _each(_add),
    "Sub": _each(_sub),
    "Mul": _each(_mul),
    "Div": _each(_div),
}
