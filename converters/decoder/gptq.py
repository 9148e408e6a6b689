"""GPTQ: rounding that makes later columns pay for the error of earlier ones.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative
Pre-trained Transformers", ICLR 2023. Columns are taken in the order of falling
activation energy; scales are those of the plain quantizer, so that the blocks
keep their place in the weight and the kernel needs no index. Pure arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters import quantize
from converters.decoder.weights import WeightFormat
from converters.quantize import Blocks, Float

Double = NDArray[np.float64]

# Share of the mean diagonal that is added to it: inputs that never moved stay invertible.
DAMPING = 0.01
# Columns whose updates are applied one by one before they reach the rest in one product.
BATCH = 32
# Elements worked on at a time; rows do not depend on each other.
ELEMENTS = 1 << 23


class Factor:
    """What GPTQ needs of a node's inputs, computed once for all weights that read them.

    Args:
        hessian: float [K, K], the sum of ``x x^T`` over the inputs ``x`` of the node.

    Attributes:
        order: int64 [K], columns by falling energy.
        upper: float32 [K, K] with ``upper^T upper = hessian^-1`` in that order.
    """

    order: NDArray[np.int64]
    upper: Float

    def __init__(self, hessian: NDArray[Any]) -> None:
        energy = np.diag(hessian).astype(np.float64)
        self.order = np.argsort(-energy, kind="stable")
        permuted = hessian[np.ix_(self.order, self.order)].astype(np.float64)
        self.upper = _inverse_factor(permuted).astype(np.float32)


def round_blocks(weight: Float, factor: Factor, target: WeightFormat) -> Blocks:
    """Quantizes a weight [N, K] for the least error of its outputs.

    Args:
        weight: float32 [out, in].
        factor: Of the node's inputs.
        target: 4 or 8 bits in blocks.
    """
    rows, columns = weight.shape
    plain = quantize.blockwise(
        weight.T,
        8 if target.bits == 8 else 4,
        target.block_size,
        symmetric=target.symmetric,
        clip=True,
    )
    values = np.empty_like(plain.values)
    step = max(1, ELEMENTS // columns)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        zero = None if plain.zero_point is None else plain.zero_point[part]
        scales = Blocks(plain.values[part], plain.scale[part], zero)
        codes = _codes(weight[part], factor, scales, target)
        values[part] = quantize.pack(codes, target.bits)
    return Blocks(values, plain.scale, plain.zero_point)


def output_error(weight: Float, rounded: Float, hessian: NDArray[Any]) -> float:
    """Mean squared error of a node's outputs relative to their energy.

    Args:
        weight: float32 [N, K].
        rounded: What stands for it.
        hessian: [K, K] of the node's inputs.
    """
    inputs = hessian.astype(np.float32)
    error = weight - rounded
    wrong = np.einsum("nk,nk->", error @ inputs, error, dtype=np.float64)
    whole = np.einsum("nk,nk->", weight @ inputs, weight, dtype=np.float64)
    return float(wrong / max(whole, np.finfo(np.float32).tiny))


def _codes(
    weight: Float, factor: Factor, scales: Blocks, target: WeightFormat
) -> NDArray[np.uint8]:
    """Codes [N, blocks, block_size]; blocks' padding keeps the plain quantizer's code."""
    bits, size = target.bits, target.block_size
    top, count = 2**bits - 1, scales.scale.shape[1]
    scale = np.ascontiguousarray(scales.scale.T)
    if scales.zero_point is None:
        zero = np.full(scale.shape, 2 ** (bits - 1), np.float32)
    else:
        zero = quantize.unpack(scales.zero_point, bits, count).T.astype(np.float32)
    codes = quantize.unpack(scales.values, bits).reshape(len(weight), -1).T.copy()
    rest = np.ascontiguousarray(weight.T[factor.order])
    for start in range(0, len(rest), BATCH):
        piece, upper = rest[start : start + BATCH], factor.upper[start : start + BATCH, start:]
        errors = np.empty_like(piece)
        for i, column in enumerate(factor.order[start : start + BATCH]):
            block = column // size
            code = np.clip(np.rint(piece[i] / scale[block]) + zero[block], 0, top)
            codes[column] = code
            errors[i] = (piece[i] - (code - zero[block]) * scale[block]) / upper[i, i]
            piece[i + 1 :] -= np.outer(upper[i, i + 1 : len(piece)], errors[i])
        rest[start + BATCH :] -= upper[:, BATCH:].T @ errors
    return codes.T.reshape(len(weight), count, size)


def _inverse_factor(hessian: Double) -> Double:
    """Upper triangular ``U`` with ``U^T U = hessian^-1``, damped so that it exists."""
    damped = hessian[::-1, ::-1].copy()
    damped[np.diag_indices(len(damped))] += DAMPING * float(np.diag(hessian).mean()) or 1.0
    lower = np.linalg.cholesky(damped).astype(np.float64, copy=False)
    return _inverse_lower(lower)[::-1, ::-1]


def _inverse_lower(lower: Double) -> Double:
    """Inverse of a lower triangular matrix, by halves."""
    size = len(lower)
    if size <= 64:
        inverse: Double = np.tril(np.linalg.inv(lower))
        return inverse
    half = size // 2
    inverse = np.zeros_like(lower)
    inverse[:half, :half] = top = _inverse_lower(lower[:half, :half])
    inverse[half:, half:] = bottom = _inverse_lower(lower[half:, half:])
    inverse[half:, :half] = -bottom @ (lower[half:, :half] @ top)
    return inverse
