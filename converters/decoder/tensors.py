"""Initializers of the graph: lazy tensors that read, stack and quantize when they are written.

A node's quantized weight, scales and zero points come from one quantization, so
the node made last is remembered, and only that one: writing a model node by
node holds one node's weights at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters import quantize
from converters.decoder.weights import WeightFormat, Weights
from converters.quantize import Blocks

FloatType = Literal["float32", "float16"]


class Tensors:
    """Makes lazy initializers from a model's weights.

    Args:
        weights: The weights.
        float_type: Element type of everything that is not quantized.
    """

    def __init__(self, weights: Weights, float_type: FloatType) -> None:
        self.weights = weights
        self.float_type = float_type
        self._last: tuple[tuple[tuple[str, ...], WeightFormat], Blocks] | None = None

    def blocks(
        self, names: Sequence[str], wanted: WeightFormat, *, flat: bool = False
    ) -> tuple[ir.LazyTensor, ir.LazyTensor, ir.LazyTensor | None]:
        """Codes, scales and zero points of matrices stacked along their output axis.

        Args:
            names: Canonical names of matrices [out, in].
            wanted: 4 or 8 bits.
            flat: Codes as [out, bytes], as ``GatherBlockQuantized`` reads them, and not
                [out, blocks, bytes per block], as ``MatMulNBits`` does; the bytes are the same.

        Returns:
            Codes (uint8), scales [out, blocks] and, unless symmetric, packed zero points (uint8).
        """
        key = (tuple(names), wanted)
        rows, width = self.shape(names)
        count = -(-width // wanted.block_size)
        packed = wanted.block_size * wanted.bits // 8
        codes = (rows, count * packed) if flat else (rows, count, packed)
        zeros = (rows, -(-count * wanted.bits // 8))
        return (
            lazy(lambda: self._quantized(key).values.reshape(codes), "uint8", codes),
            lazy(lambda: self._quantized(key).scale, self.float_type, (rows, count)),
            None
            if wanted.symmetric
            else lazy(lambda: _given(self._quantized(key).zero_point), "uint8", zeros),
        )

    def matrix(
        self, names: Sequence[str], element: FloatType, *, transposed: bool = True
    ) -> ir.LazyTensor:
        """Matrices [out, in] stacked along ``out``, as [in, out] where transposed."""
        rows, width = self.shape(names)
        shape = (width, rows) if transposed else (rows, width)

        def make() -> NDArray[Any]:
            stacked = np.empty(shape, element)
            target, start = stacked.T if transposed else stacked, 0
            for name in names:
                part = self.weights.read(name)
                target[start : start + len(part)] = part
                start += len(part)
            return stacked

        return lazy(make, element, shape)

    def vector(self, names: Sequence[str]) -> ir.LazyTensor:
        """Vectors (norms, biases) one after another."""
        length = sum(self.weights.shape(name)[0] for name in names)

        def make() -> NDArray[Any]:
            return np.concatenate([self.weights.read(name) for name in names])

        return lazy(make, self.float_type, (length,))

    def shape(self, names: Sequence[str]) -> tuple[int, int]:
        """Rows and columns of matrices stacked along their output axis."""
        shapes = [self.weights.shape(name) for name in names]
        return sum(rows for rows, _ in shapes), shapes[0][1]

    def _quantized(self, key: tuple[tuple[str, ...], WeightFormat]) -> Blocks:
        if self._last is None or self._last[0] != key:
            self._last = None  # frees the previous node's before this one's are made
            names, wanted = key
            self._last = (key, _stack([self._part(name, wanted) for name in names]))
        return self._last[1]

    def _part(self, name: str, wanted: WeightFormat) -> Blocks:
        given = self.weights.blocks(name, wanted)
        if given is not None:
            return given
        assert wanted.bits == 4 or wanted.bits == 8, "other formats are floats"
        return quantize.blockwise(
            self.weights.read(name).T, wanted.bits, wanted.block_size, symmetric=wanted.symmetric
        )


def _stack(parts: Sequence[Blocks]) -> Blocks:
    """Blocks of several matrices, one below the other."""
    if len(parts) == 1:
        return parts[0]
    zeros = [part.zero_point for part in parts if part.zero_point is not None]
    return Blocks(
        values=np.concatenate([part.values for part in parts]),
        scale=np.concatenate([part.scale for part in parts]),
        zero_point=np.concatenate(zeros) if zeros else None,
    )


def _given(zero_point: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    assert zero_point is not None, "asymmetric blocks have zero points"
    return zero_point


def lazy(make: Callable[[], NDArray[Any]], element: str, shape: tuple[int, ...]) -> ir.LazyTensor:
    """A tensor that is made, in this element type, whenever it is read."""
    dtype = ir.DataType.from_numpy(np.dtype(element))
    return ir.LazyTensor(
        lambda: ir.tensor(np.ascontiguousarray(make(), element)), dtype=dtype, shape=ir.Shape(shape)
    )
