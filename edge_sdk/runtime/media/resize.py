"""Resizing of byte pictures, equal to Pillow's ``Image.resize`` bit by bit.

Pillow's way (``Resample.c``): one pass over the columns, one over the rows, each
rounded to bytes; the filter is widened by the factor of shrinking; its weights are
normalized and rounded to fixed point. Reference: https://github.com/python-pillow/Pillow.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtime.steps import Filter

Bytes = NDArray[np.uint8]
Float64 = NDArray[np.float64]

PRECISION = float(1 << 22)  # of a weight; products with bytes stay exact in float64


def resize(picture: Bytes, height: int, width: int, resample: Filter) -> Bytes:
    """A picture in another size.

    Args:
        picture: ``[height, width, channels]``.
        height: Rows of the result.
        width: Columns of the result.
        resample: The filter.
    """
    if resample == "nearest":
        rows, columns = (
            _nearest(before, after)
            for before, after in zip(picture.shape, (height, width), strict=False)
        )
        return np.asarray(picture[rows][:, columns])
    if picture.shape[1] != width:
        turned = np.ascontiguousarray(picture.transpose(1, 0, 2))
        picture = _resize_rows(turned, width, resample).transpose(1, 0, 2)
    if picture.shape[0] != height:
        picture = _resize_rows(np.ascontiguousarray(picture), height, resample)
    return np.ascontiguousarray(picture)


def keep_proportion(height: int, width: int, shorter: int) -> tuple[int, int]:
    """(height, width) in the given proportion whose shorter side is ``shorter``."""
    low, high = sorted((height, width))
    longer = int(shorter * high / low)
    return (shorter, longer) if height <= width else (longer, shorter)


def _nearest(before: int, after: int) -> NDArray[np.int64]:
    """The row that each row of the result shows; steps are summed up as Pillow does."""
    step = before / after
    positions = np.cumsum(np.r_[step * 0.5, np.full(after - 1, step)])
    return np.minimum(positions.astype(np.int64), before - 1)


def _resize_rows(picture: Bytes, after: int, resample: Filter) -> Bytes:
    """Resizes the first axis, one row of the result at a time: memory is that of a few rows."""
    before, *rest = picture.shape
    flat = picture.reshape(before, -1)
    result = np.empty((after, flat.shape[1]), np.uint8)
    kernel, reach = FILTERS[resample]
    scale = before / after
    widened = max(scale, 1.0)
    for row in range(after):
        center = (row + 0.5) * scale
        first = max(int(center - reach * widened + 0.5), 0)
        last = min(int(center + reach * widened + 0.5), before)
        weights = _fixed_point(kernel((np.arange(first, last) - center + 0.5) / widened))
        total = weights @ flat[first:last].astype(np.float64)
        result[row] = np.clip(np.floor((total + PRECISION / 2) / PRECISION), 0, 255)
    return result.reshape(after, *rest)


def _fixed_point(weights: Float64) -> Float64:
    """Weights of sum one as whole multiples of ``1 / PRECISION``, halves away from zero."""
    scaled = weights / (weights.sum() or 1.0) * PRECISION
    return np.asarray(np.trunc(scaled + np.copysign(0.5, scaled)))


def _box(x: Float64) -> Float64:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def _triangle(x: Float64) -> Float64:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _hamming(x: Float64) -> Float64:
    return np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(math.pi * x)), 0.0)


def _cubic(x: Float64) -> Float64:
    """Keys' cubic convolution with a = -1/2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((x - 5) * x + 8) * x - 4
    return np.where(x < 1, near, np.where(x < 2, -0.5 * far, 0.0))


def _lanczos(x: Float64) -> Float64:
    return np.where((x >= -3) & (x < 3), np.sinc(x) * np.sinc(x / 3), 0.0)


FILTERS: dict[str, tuple[Callable[[Float64], Float64], float]] = {
    "box": (_box, 0.5),
    "bilinear": (_triangle, 1.0),
    "hamming": (_hamming, 1.0),
    "bicubic": (_cubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}
