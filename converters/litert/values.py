"""Which tensors hold which ONNX values, in which layout and element type.

An ONNX value is held in one layout as it was computed; any other is made, once,
when an operator asks for it. So a permutation costs nothing until an operator
needs its axes in order, and a convolutional network stays channels-last from its
first layer to its head. A quantized value is held as codes; its real numbers are
made only for operators that cannot compute with codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, groupby
from typing import Any

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from converters.litert.flatbuffer import TYPES
from converters.litert.subgraph import Subgraph
from converters.litert.tensors import (
    FLOAT,
    INT8,
    INT32,
    Array,
    Perm,
    Quantization,
    Shape,
    Tensor,
    between,
    identity,
    logical,
    only_moves_ones,
    permuted,
    unknown,
)

# Sentinels such as "to the end" lie far outside of what any axis has.
SENTINEL = 2**62


@dataclass(eq=False)
class Held:
    """What stands for one ONNX value.

    Attributes:
        shape: Shape of the value.
        forms: Its tensors by permutation; the first is as it was computed.
        array: Its elements, if it is constant.
        entries: Its elements as numbers and names of sizes, if it is a vector of such.
        codes: The quantized value whose numbers it stands for.
        quantization: What its elements stand for, if they are codes.
    """

    shape: Shape
    forms: dict[Perm, Tensor] = field(default_factory=dict)
    array: Array | None = None
    entries: NDArray[np.object_] | None = None
    codes: Held | None = None
    quantization: Quantization | None = None

    @property
    def perm(self) -> Perm:
        """The permutation it was computed in."""
        if self.forms:
            return next(iter(self.forms))
        return self.codes.perm if self.codes is not None else identity(len(self.shape))

    @property
    def is_constant(self) -> bool:
        """Whether its elements are known."""
        return self.array is not None or (self.codes is not None and self.codes.is_constant)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Its shape, of which nothing is open; that of a constant."""
        return tuple(size for size in self.shape if isinstance(size, int))

    def numpy(self) -> Array | None:
        """Its elements, if it is constant."""
        if self.array is None and self.codes is not None and self.codes.array is not None:
            self.array = _dequantized(self.codes.array, self.codes.quantization)
        return self.array


def computed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type that stands for ``dtype`` inside: kernels for it exist."""
    if dtype.kind == "f" or dtype.name == "bfloat16":
        return FLOAT
    return INT32 if dtype.kind in "iu" else dtype


def narrowed(array: Array) -> Array | None:
    """The elements in the type they have inside; ``None`` if one does not fit.

    Bytes stay bytes, so that tables of codes stay small: whoever computes with them
    makes them wider.
    """
    if array.dtype.itemsize == 1:
        return array
    dtype = computed(array.dtype)
    if dtype == array.dtype or array.dtype.kind not in "iu":
        return array.astype(dtype, copy=False)
    info = np.iinfo(np.int32)
    fits = (array >= info.min) & (array <= info.max)
    if not (fits | (array >= SENTINEL) | (array <= -SENTINEL)).all():
        return None
    return np.clip(array, info.min, info.max).astype(dtype)


class Values:
    """The ONNX values of one graph that are held so far.

    Args:
        graph: Where tensors and operators are added.
        outer: The values of the graph around it.
    """

    def __init__(self, graph: Subgraph, outer: Values | None = None) -> None:
        self.graph = graph
        # All graphs of the model so far: operators refer to them by index.
        self.graphs: list[Subgraph] = [] if outer is None else outer.graphs
        self.graphs.append(graph)
        self.scope = ""
        # Names of sizes are unique in all graphs of the model.
        self._numbers: Iterator[int] = count() if outer is None else outer._numbers
        self._held: dict[ir.Value, Held] = {}
        self._computed: dict[object, Tensor] = {}
        # Where a size that has a name can be read.
        self.named: dict[str, tuple[Tensor, int]] = {}

    def __contains__(self, value: ir.Value) -> bool:
        return value in self._held

    def __getitem__(self, value: ir.Value) -> Held:
        return self._held[value]

    def __setitem__(self, value: ir.Value, held: Held) -> None:
        self._held[value] = held

    def form(self, held: Held, perm: Perm | None = None) -> Tensor:
        """The tensor that holds a value with a permutation, in order by default."""
        perm = identity(len(held.shape)) if perm is None else perm
        if perm not in held.forms:
            held.forms[perm] = self._make(held, perm)
        return held.forms[perm]

    def add(
        self,
        op: str,
        inputs: Sequence[Tensor | None],
        shape: Shape,
        dtype: np.dtype[Any],
        options: Any = None,
        quantization: Quantization | None = None,
    ) -> Tensor:
        """The one output of an operator; the same one if that is there already."""
        settings = () if options is None else tuple((k, str(v)) for k, v in vars(options).items())
        key = op, tuple(inputs), dtype, settings, quantization
        if key not in self._computed:
            self._computed[key] = Tensor(self.scope, dtype, shape, quantization)
            self.graph.emit(op, inputs, [self._computed[key]], options)
        return self._computed[key]

    def integers(self, values: Any, dtype: np.dtype[Any] = INT32) -> Tensor:
        """A constant of integers."""
        return self.graph.constant(np.asarray(values, dtype))

    def cast(self, tensor: Tensor, dtype: np.dtype[Any]) -> Tensor:
        """The tensor with another element type."""
        if tensor.dtype == dtype:
            return tensor
        if tensor.data is not None:
            return self.graph.constant(tensor.data.astype(dtype), tensor.name)
        options = schema.CastOptionsT(TYPES[tensor.dtype], TYPES[dtype])
        return self.add("CAST", [tensor], tensor.shape, dtype, options)

    def requantize(self, tensor: Tensor, target: Quantization) -> Tensor:
        """The tensor as codes: of real numbers, or of other codes."""
        if tensor.quantization == target:
            return tensor
        return self.add("QUANTIZE", [tensor], tensor.shape, INT8, None, target)

    def transpose(self, tensor: Tensor, order: Perm) -> Tensor:
        """The tensor with its axes in another order."""
        if order == identity(len(order)):
            return tensor
        shape = permuted(tensor.shape, order)
        if only_moves_ones(tensor.shape, order) and unknown(shape) <= 1:
            return self.reshape(tensor, shape)
        inputs = [tensor, self.integers(order)]
        return self.add("TRANSPOSE", inputs, shape, tensor.dtype, None, tensor.quantization)

    def reshape(self, tensor: Tensor, shape: Shape, at_run_time: Tensor | None = None) -> Tensor:
        """The tensor in another shape.

        Args:
            tensor: What to reshape.
            shape: The new shape.
            at_run_time: A tensor that says it, where a size has no name yet.
        """
        if tensor.shape == shape and None not in shape:
            return tensor
        if tensor.data is not None and not unknown(shape):
            data = tensor.data.reshape([size for size in shape if isinstance(size, int)])
            return self.graph.constant(data, tensor.name, tensor.quantization)
        if not shape:
            # An empty constant would read as "no data".
            inputs, options = [tensor], schema.ReshapeOptionsT(newShape=[])
        else:
            target = at_run_time or self.sizes(shape, free=True)
            inputs, options = [tensor, target], None
        return self.add("RESHAPE", inputs, shape, tensor.dtype, options, tensor.quantization)

    def copy(self, tensor: Tensor) -> Tensor:
        """A tensor of its own with the same elements."""
        options = schema.CastOptionsT(TYPES[tensor.dtype], TYPES[tensor.dtype])
        return self.add("CAST", [tensor], tensor.shape, tensor.dtype, options)

    def sizes(self, shape: Shape, *, free: bool = False) -> Tensor:
        """A shape as a tensor of int32: a constant if possible, else looked up at run time.

        Args:
            shape: The sizes, all known or named.
            free: Whether one size may be -1, as ``RESHAPE`` works it out.
        """
        if free and unknown(shape) == 1:
            shape = tuple(size if isinstance(size, int) else -1 for size in shape)
        elif free:
            shape = tuple(-1 if size is None else size for size in shape)
        parts: list[Tensor] = []
        for named, group in groupby(shape, key=lambda size: isinstance(size, str)):
            if named:
                parts.extend(self._looked_up(name) for name in group if isinstance(name, str))
            else:
                parts.append(self.integers(list(group)))
        return self.joined(parts)

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Vectors of int32 one after the other."""
        if len(parts) == 1:
            return parts[0]
        lengths = [part.shape[0] for part in parts]
        total = None if unknown(lengths) else sum(n for n in lengths if isinstance(n, int))
        options = schema.ConcatenationOptionsT(axis=0)
        return self.add("CONCATENATION", parts, (total,), INT32, options)

    def part(self, vector: Tensor, start: int, count: int) -> Tensor:
        """Some entries of a vector of int32."""
        inputs = [vector, *(self.integers([bound]) for bound in (start, start + count, 1))]
        options = schema.StridedSliceOptionsT()
        return self.add("STRIDED_SLICE", inputs, (count,), INT32, options)

    def shape_of(self, tensor: Tensor) -> Tensor:
        """The shape of a tensor as a tensor of int32."""
        if not unknown(tensor.shape):
            return self.integers(tensor.shape)
        options = schema.ShapeOptionsT(outType=schema.TensorType.INT32)
        return self.add("SHAPE", [tensor], (tensor.rank,), INT32, options)

    def name_sizes(self, tensor: Tensor) -> None:
        """Gives a name to every size of a tensor that has none, and remembers where it is."""
        tensor.shape = tuple(
            f"?{next(self._numbers)}" if size is None else size for size in tensor.shape
        )
        for axis, name in enumerate(tensor.shape):
            if isinstance(name, str):
                self.named.setdefault(name, (tensor, axis))

    def _looked_up(self, name: str) -> Tensor:
        tensor, axis = self.named[name]
        return self.part(self.shape_of(tensor), axis, 1)

    def _make(self, held: Held, perm: Perm) -> Tensor:
        array = held.numpy()
        if array is not None:
            return self.graph.constant(np.transpose(array, perm), quantization=held.quantization)
        if held.entries is not None:
            looked_up = self.sizes(tuple(held.entries.reshape(-1).tolist()))
            return self.reshape(looked_up, held.shape)
        if held.forms:
            have = held.perm
            return self.transpose(held.forms[have], between(have, perm))
        assert held.codes is not None, "a value is held in some form"
        codes = self.form(held.codes, perm)
        return self.add("DEQUANTIZE", [codes], codes.shape, FLOAT)


def _dequantized(codes: Array, quantization: Quantization | None) -> Array:
    assert quantization is not None, "codes have a scale"
    shape = [1] * codes.ndim
    if len(quantization.scale) > 1:
        shape[quantization.axis] = -1
    scale = np.array(quantization.scale, np.float32).reshape(shape)
    return (codes.astype(np.float32) - np.float32(quantization.zero_point)) * scale


def hold(tensor: Tensor, perm: Perm | None = None) -> Held:
    """What stands for a value that ``tensor`` holds."""
    perm = identity(tensor.rank) if perm is None else perm
    return Held(logical(tensor.shape, perm), {perm: tensor}, quantization=tensor.quantization)
