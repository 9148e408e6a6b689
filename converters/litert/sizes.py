"""Target shapes as ONNX inputs say them."""

from __future__ import annotations

from converters.litert.call import Call
from converters.litert.tensors import Shape, Size


def asked(call: Call, index: int, rank: int | None = None) -> Shape:
    """The sizes that an input lists, -1 and 0 as they are written; ``None`` for one unknown.

    Args:
        call: The node.
        index: Which input.
        rank: How many there are, if nothing else says it.

    Raises:
        UnsupportedOperatorError: Not even their number is known.
    """
    held = call.held(index)
    if held.array is not None:
        return tuple(int(size) for size in held.array.reshape(-1))
    if held.entries is not None:
        return tuple(held.entries.reshape(-1).tolist())
    shape = call.shape(index)
    length = shape[0] if shape else None
    length = length if isinstance(length, int) else rank
    if length is None:
        raise call.unsupported("the rank of its result is known only at run time")
    return (None,) * length


def expanded(shape: Shape, target: Shape) -> Shape:
    """The shape that ``Expand`` gives; an unknown axis that meets anything but 1 is that."""
    rank = max(len(shape), len(target))
    first, second = ((*(1,) * (rank - len(s)), *s) for s in (shape, target))
    return tuple(_met(a, b) for a, b in zip(first, second, strict=True))


def _met(size: Size, asked_size: Size) -> Size:
    if size == 1 or size == asked_size:
        return asked_size
    if isinstance(size, int) or asked_size == 1:
        return size
    return asked_size if isinstance(asked_size, int) else None
