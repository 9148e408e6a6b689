"""Values of a TensorFlow Lite graph, and the arithmetic of their shapes and layouts.

A *permutation* says how a value is held: axis ``i`` of the tensor is axis
``perm[i]`` of the ONNX value. The channels-last form of an NCHW value has
``(0, 2, 3, 1)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# A size known only at run time has a name, and equal names are equal sizes; ``None`` is one
# that has no name yet.
Size = int | str | None
Shape = tuple[Size, ...]
Perm = tuple[int, ...]

FLOAT = np.dtype(np.float32)
INT32 = np.dtype(np.int32)
INT8 = np.dtype(np.int8)
BOOL = np.dtype(np.bool_)


@dataclass(frozen=True)
class Quantization:
    """How codes stand for numbers: ``real = (code - zero_point) * scale``.

    Attributes:
        scale: One scale, or one per index along ``axis``.
        zero_point: The same for all; 0 where there are several scales.
        axis: The axis of the scales.
    """

    scale: tuple[float, ...]
    zero_point: int = 0
    axis: int = 0


@dataclass(eq=False)
class Tensor:
    """One tensor of a graph: an input, a constant, or the result of an operator.

    Attributes:
        name: For people who read the file; not unique.
        dtype: Type of its elements.
        shape: Its shape.
        quantization: What its integers stand for, if they are codes.
        data: The elements of a constant.
    """

    name: str
    dtype: np.dtype[Any]
    shape: Shape
    quantization: Quantization | None = None
    data: Array | None = None

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


def identity(rank: int) -> Perm:
    """The permutation that leaves axes where they are."""
    return tuple(range(rank))


def channels_last(rank: int) -> Perm:
    """The permutation that moves axis 1 to the end."""
    return (0, *range(2, rank), 1) if rank > 2 else identity(rank)


def permuted(shape: Sequence[Any], perm: Perm) -> tuple[Any, ...]:
    """The shape of a value of shape ``shape`` held with ``perm``."""
    return tuple(shape[axis] for axis in perm)


def logical(shape: Sequence[Any], perm: Perm) -> tuple[Any, ...]:
    """The shape of the value that is held with ``perm`` in a tensor of shape ``shape``."""
    found = [None] * len(perm)
    for size, axis in zip(shape, perm, strict=True):
        found[axis] = size
    return tuple(found)


def between(held: Perm, wanted: Perm) -> Perm:
    """The transposition that takes a tensor from one permutation to another."""
    return tuple(held.index(axis) for axis in wanted)


def broadcast(*shapes: Shape) -> Shape:
    """The shape that shapes broadcast to; an unknown axis stays unknown beside 1."""
    rank = max((len(shape) for shape in shapes), default=0)
    columns = zip(*((*(1,) * (rank - len(shape)), *shape) for shape in shapes), strict=True)
    return tuple(_broadcast(column) for column in columns)


def _broadcast(sizes: Sequence[Size]) -> Size:
    others = list(dict.fromkeys(size for size in sizes if size != 1))
    known = [size for size in others if isinstance(size, int)]
    if known or len(others) == 1:
        return (known or others)[0]
    return None if others else 1


def merged(first: Shape | None, second: Shape | None) -> Shape | None:
    """What two descriptions of the same shape say together; the first one's names prevail."""
    if first is None or second is None or len(first) != len(second):
        return first if first is not None else second
    return tuple(
        b if a is None or (isinstance(a, str) and isinstance(b, int)) else a
        for a, b in zip(first, second, strict=True)
    )


def size_of(shape: Shape) -> int | None:
    """Number of elements, if it is known."""
    return None if unknown(shape) else math.prod(size for size in shape if isinstance(size, int))


def product_of(shape: Shape) -> Size:
    """Number of elements, or the name of the one size that it is."""
    others = [size for size in shape if size != 1]
    return others[0] if len(others) == 1 else size_of(shape)


def unknown(shape: Sequence[Size]) -> int:
    """How many sizes are known only at run time."""
    return sum(not isinstance(size, int) for size in shape)


def with_size(shape: Shape, axis: int, size: Size) -> Shape:
    """The shape with another size of one axis."""
    return (*shape[:axis], size, *shape[axis + 1 :])


def shifted(size: Size, amount: int) -> int | None:
    """A size plus a number, if it is known."""
    return size + amount if isinstance(size, int) else None


def scaled(size: Size, factor: int) -> Size:
    """A size times a number, if that is known."""
    return size if factor == 1 else size * factor if isinstance(size, int) else None


def only_moves_ones(shape: Sequence[Size], transposition: Perm) -> bool:
    """Whether a transposition leaves the order of all axes longer than 1 as it is."""
    moved = [axis for axis in transposition if shape[axis] != 1]
    return moved == sorted(moved)
