"""Target shapes: as constants wherever that says it all, else computed at run time."""

from __future__ import annotations

import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from converters.litert.call import Call
from converters.litert.tensors import Shape, Tensor
from converters.passes.dimensions import Dim, Entries, trace


def vector(call: Call, index: int, length: int) -> tuple[Shape, Tensor | None]:
    """The sizes that an input asks for, -1 and 0 as they are written.

    Returns:
        The sizes, ``None`` where one is known only at run time; and, if any is, a
        tensor of int32 that says all of them.
    """
    entries = trace(call.node.inputs[index])
    if entries is None or entries.ndim != 1 or len(entries) != length:
        return (None,) * length, call.tensor(index)
    sizes = tuple(item if isinstance(item, int) else None for item in entries)
    if None not in sizes:
        return sizes, None
    if any(item is None for item in entries):
        return sizes, call.tensor(index)
    return sizes, _gathered(call, entries)


def _gathered(call: Call, entries: Entries) -> Tensor:
    """Numbers and sizes of values as one tensor."""
    parts: list[Tensor] = []
    numbers: list[int] = []
    for item in entries:
        if isinstance(item, Dim):
            if numbers:
                parts.append(call.values.integers(numbers))
                numbers = []
            parts.append(size_at(call, item.value, item.axis))
        else:
            numbers.append(item)
    if numbers:
        parts.append(call.values.integers(numbers))
    return concatenated(call, parts)


def size_at(call: Call, value: ir.Value, axis: int) -> Tensor:
    """The size of one axis of a value, as a vector of one."""
    held = call.values[value]
    perm = held.perm
    shape = call.values.run_time_shape(call.values.form(held, perm))
    return picked(call, shape, perm.index(axis), 1)


def picked(call: Call, sizes: Tensor, start: int, count: int) -> Tensor:
    """Some entries of a vector."""
    inputs = [sizes, *(call.values.integers([n]) for n in (start, start + count, 1))]
    options = schema.StridedSliceOptionsT()
    return call.emit("STRIDED_SLICE", inputs, (count,), options=options)


def concatenated(call: Call, parts: list[Tensor]) -> Tensor:
    """Vectors one after the other."""
    if len(parts) == 1:
        return parts[0]
    lengths = [part.shape[0] for part in parts]
    total = None if None in lengths else sum(n for n in lengths if n is not None)
    options = schema.ConcatenationOptionsT(axis=0)
    return call.emit("CONCATENATION", parts, (total,), options=options)


def reshaped(call: Call, tensor: Tensor, sizes: Shape, at_run_time: Tensor | None) -> Tensor:
    """A tensor in a shape whose unknown axes ``at_run_time`` says, if one constant cannot."""
    known = sizes if sizes.count(None) <= 1 else None
    return call.values.reshape(tensor, sizes, None if known is not None else at_run_time)


def broadcast_to(shape: Shape, asked: Shape) -> Shape:
    """The shape that ``Expand`` gives; an unknown axis that meets anything but 1 is that."""
    rank = max(len(shape), len(asked))
    first, second = ((*(1,) * (rank - len(s)), *s) for s in (shape, asked))
    return tuple(
        b if a == 1 else a if b == 1 or a is not None else b
        for a, b in zip(first, second, strict=True)
    )
