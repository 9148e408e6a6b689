"""The arithmetic of quantization: pure functions over arrays, no graphs.

Rounding is to nearest, ties to even, as ONNX ``QuantizeLinear`` rounds. A
slice that is all zero gets scale 1, so that nothing divides by zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Float = NDArray[np.float32]
IntType = Literal["int8", "uint8"]

# Kernels flush smaller numbers to zero.
SMALLEST_SCALE = np.finfo(np.float32).tiny
# Shares of the largest magnitude that the search for the best clip tries.
CLIPS = np.linspace(1.0, 0.7, 13, dtype=np.float32)
# Elements worked on at a time: a few arrays of them stay in the second-level cache.
CACHED = 1 << 16


@dataclass(frozen=True)
class Affine:
    """Quantization of a whole tensor: ``real = (quantized - zero_point) * scale``."""

    scale: np.float32
    zero_point: int
    dtype: IntType

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest real value that is represented."""
        info = np.iinfo(self.dtype)
        scale = float(self.scale)
        return (info.min - self.zero_point) * scale, (info.max - self.zero_point) * scale


@dataclass(frozen=True)
class Symmetric:
    """Signed values with zero point 0.

    Attributes:
        values: int8, the shape of the weight.
        scale: float32, one per slice along ``axis``, or 0-d.
        axis: The axis with a scale per index; ``None`` for one scale.
    """

    values: NDArray[np.int8]
    scale: Float
    axis: int | None

    def dequantize(self) -> Float:
        """The real values that are represented."""
        return (self.values * _along(self.scale, self.axis, self.values.ndim)).astype(np.float32)


@dataclass(frozen=True)
class Blocks:
    """A weight [K, N] quantized along K in blocks, laid out as MatMulNBits reads it.

    Attributes:
        values: uint8 [N, blocks, block_size * bits / 8]; 4-bit values low nibble first.
        scale: float32 [N, blocks].
        zero_point: uint8 [N, ceil(blocks * bits / 8)], or ``None`` for the middle code.
    """

    values: NDArray[np.uint8]
    scale: Float
    zero_point: NDArray[np.uint8] | None


def affine(low: float, high: float, dtype: IntType = "uint8", symmetric: bool = False) -> Affine:
    """Parameters that represent ``[low, high]``, zero exactly.

    Args:
        low: Lowest value; taken as 0 if positive.
        high: Highest value; taken as 0 if negative.
        dtype: Type of the quantized values.
        symmetric: Put zero in the middle (zero point 0 for int8, 128 for uint8).
    """
    low, high = min(low, 0.0), max(high, 0.0)
    info = np.iinfo(dtype)
    if symmetric:
        middle = 0 if dtype == "int8" else 128
        scale = np.float32(max(-low, high) / 127)
        return Affine(scale if scale >= SMALLEST_SCALE else np.float32(1), middle, dtype)
    scale = np.float32((high - low) / (info.max - info.min))
    if scale < SMALLEST_SCALE:
        return Affine(np.float32(1), info.min, dtype)
    zero_point = int(np.clip(np.rint(info.min - low / float(scale)), info.min, info.max))
    return Affine(scale, zero_point, dtype)


def symmetric(
    weight: Float,
    axis: int | None = None,
    *,
    limit: int = 127,
    clip: bool = False,
    floor: Float | None = None,
) -> Symmetric:
    """Quantizes a weight to int8 with zero point 0.

    Args:
        weight: float32 array.
        axis: The axis with a scale per index (the output channels); ``None`` for one scale.
        limit: Largest code: 127, or 63 where the kernel's 16-bit sums could saturate.
        clip: Choose each scale for the least squared error instead of the largest magnitude.
        floor: Smallest scale allowed, in the shape of the scales; a slice of zeros gets it.
    """
    others = tuple(i for i in range(weight.ndim) if axis is None or i != axis % weight.ndim)
    largest = np.abs(weight).max(axis=others, initial=0).astype(np.float32)
    scale = _nonzero(np.maximum(largest / np.float32(limit), 0 if floor is None else floor))
    if clip:
        scale = _best_clip(weight, scale, axis, others, limit)
    return Symmetric(_codes(weight, _along(scale, axis, weight.ndim), limit), scale, axis)


def blockwise(
    weight: Float, bits: Literal[4, 8], block_size: int, *, symmetric: bool, clip: bool = False
) -> Blocks:
    """Quantizes a weight [K, N] in blocks of ``block_size`` along K, the last one padded.

    Args:
        weight: float32 [K, N].
        bits: Width of a code.
        block_size: Weights that share a scale; a power of two from 16 up.
        symmetric: Zero is the middle code; otherwise each block has a zero point.
        clip: Choose each block's range for the least squared error.
    """
    k, n = weight.shape
    blocks = -(-k // block_size)
    values = np.empty((n, blocks, block_size * bits // 8), np.uint8)
    scale = np.empty((n, blocks), np.float32)
    zero = np.empty((n, blocks), np.uint8)
    step = max(1, CACHED // (blocks * block_size))
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        padded = np.zeros((part.stop - start, blocks * block_size), np.float32)
        padded[:, :k] = weight[:, part].T
        rows = padded.reshape(-1, blocks, block_size)
        codes, scale[part], zero[part] = _quantized(rows, bits, symmetric, clip)
        values[part] = pack(codes, bits)
    return Blocks(values, scale, None if symmetric else pack(zero, bits))


def dequantize(blocks: Blocks, bits: int, k: int) -> Float:
    """The weight [N, K] that blocks represent.

    Args:
        blocks: Quantized weight.
        bits: Width of a code.
        k: Length of the input axis, without the last block's padding.
    """
    n, count = blocks.scale.shape
    zero = unpack(blocks.zero_point, bits, count) if blocks.zero_point is not None else None
    real = np.empty((n, k), np.float32)
    step = max(1, CACHED // max(k, 1))
    for start in range(0, n, step):
        part = slice(start, start + step)
        codes = unpack(blocks.values[part], bits).astype(np.float32)
        codes -= 2 ** (bits - 1) if zero is None else zero[part, :, None]
        codes *= blocks.scale[part, :, None]
        real[part] = codes.reshape(len(codes), -1)[:, :k]
    return real


def pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Packs 4-bit codes in pairs along the last axis, low nibble first, the last one padded."""
    if bits == 8:
        return codes
    even = np.concatenate([codes, np.zeros((*codes.shape[:-1], codes.shape[-1] % 2), np.uint8)], -1)
    packed: NDArray[np.uint8] = even[..., 0::2] | (even[..., 1::2] << 4)
    return packed


def unpack(packed: NDArray[np.uint8], bits: int, count: int | None = None) -> NDArray[np.uint8]:
    """Undoes :func:`pack`; ``count`` cuts the padding off."""
    if bits == 8:
        return packed
    codes: NDArray[np.uint8] = np.stack([packed & 15, packed >> 4], axis=-1)
    codes = codes.reshape(*packed.shape[:-1], -1)
    return codes if count is None else codes[..., :count]


def block_scales(low: Float, high: Float, bits: int, symmetric: bool) -> tuple[Float, Float]:
    """Scale and zero point of blocks whose values lie between ``low`` and ``high``."""
    top = 2**bits - 1
    if symmetric:
        # Codes reach one step further below the middle than above it; the sign of the scale
        # gives that step to the larger side, as in GGML's Q4_0 and ONNX Runtime's own packer.
        middle = top // 2 + 1
        scale = _nonzero(np.where(-low > high, low, high) / np.float32(-middle))
        return scale, np.full(scale.shape, middle, np.float32)
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scale = _nonzero((high - low) / np.float32(top))
    return scale, np.clip(np.rint(-low / scale), 0, top)


def _quantized(
    rows: Float, bits: int, symmetric: bool, clip: bool
) -> tuple[NDArray[np.uint8], Float, Float]:
    """Codes, scales and zero points of rows [N, blocks, block_size]."""
    low, high = rows.min(axis=2), rows.max(axis=2)
    scale, zero = block_scales(low, high, bits, symmetric)
    if clip:
        error = _block_error(rows, scale, zero, bits)
        for share in CLIPS[1:]:
            tried = block_scales(low * share, high * share, bits, symmetric)
            tried_error = _block_error(rows, *tried, bits)
            better = tried_error < error
            scale, zero = np.where(better, tried[0], scale), np.where(better, tried[1], zero)
            error = np.minimum(error, tried_error)
    return _block_codes(rows, scale, zero, bits).astype(np.uint8), scale, zero


def _block_codes(rows: Float, scale: Float, zero: Float, bits: int) -> Float:
    codes = rows / scale[..., None]
    np.rint(codes, out=codes)
    codes += zero[..., None]
    return np.clip(codes, 0, 2**bits - 1, out=codes)


def _block_error(rows: Float, scale: Float, zero: Float, bits: int) -> Float:
    real = _block_codes(rows, scale, zero, bits)
    real -= zero[..., None]
    real *= scale[..., None]
    real -= rows
    error: Float = np.einsum("nbk,nbk->nb", real, real)
    return error


def _best_clip(
    weight: Float, scale: Float, axis: int | None, others: tuple[int, ...], limit: int
) -> Float:
    best, least = scale, np.full(scale.shape, np.inf, np.float32)
    for share in CLIPS:
        tried = (scale * share).astype(np.float32)
        wide = _along(tried, axis, weight.ndim)
        error = np.square(_codes(weight, wide, limit) * wide - weight).sum(axis=others)
        best = np.where(error < least, tried, best)
        least = np.minimum(error, least)
    return best


def _codes(weight: Float, scale: Float, limit: int) -> NDArray[np.int8]:
    codes: NDArray[np.int8] = np.clip(np.rint(weight / scale), -limit, limit).astype(np.int8)
    return codes


def _along(scale: Float, axis: int | None, ndim: int) -> Float:
    """Reshapes scales so that they broadcast along ``axis``."""
    if axis is None:
        return scale
    shape = [1] * ndim
    shape[axis] = -1
    return scale.reshape(shape)


def _nonzero(scale: NDArray[np.floating]) -> Float:
    return np.where(np.abs(scale) < SMALLEST_SCALE, 1, scale).astype(np.float32)
