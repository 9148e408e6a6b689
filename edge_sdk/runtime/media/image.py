"""A picture to a model input, as an :class:`~edge_sdk.runtime.steps.Image` step says.

The order of operations and their rounding are those of transformers' image processors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import DataError
from edge_sdk.runtime.inputs import Array
from edge_sdk.runtime.media.image_files import read_image
from edge_sdk.runtime.media.resize import Bytes, keep_proportion, resize
from edge_sdk.runtime.steps import Channels, Image

Float32 = NDArray[np.float32]
REMEDY = "give uint8 [height, width, 3] in RGB, or [height, width] in grey"


def pictures(given: Any) -> list[Bytes]:
    """One or several pictures as ``[height, width, channels]`` each.

    Args:
        given: A path or an array, a sequence of these, or an array
            ``[pictures, height, width, channels]``.

    Raises:
        DataError: A file cannot be read, or an array is no picture.
    """
    if isinstance(given, (str, Path)):
        return [read_image(Path(given))]
    if isinstance(given, np.ndarray) and given.ndim < 4:
        return [check_picture(given, "image")]
    if not isinstance(given, (Sequence, np.ndarray)):
        raise DataError(
            f"expected a picture, given {type(given).__name__}", where="image", remedy=REMEDY
        )
    return [
        read_image(Path(one)) if isinstance(one, (str, Path)) else check_picture(one, f"image {i}")
        for i, one in enumerate(given)
    ]


def check_picture(given: Any, where: str) -> Bytes:
    """A picture as bytes ``[height, width, 1 or 3]``.

    Raises:
        DataError: It has another dtype or shape.
    """
    picture = np.asarray(given)
    grey = picture.ndim == 2
    shape = list(picture.shape)
    if grey:
        picture = picture[:, :, None]
    if picture.ndim != 3 or picture.shape[2] not in (1, 3) or picture.size == 0:
        four = picture.ndim == 3 and picture.shape[2] == 4
        remedy = "leave its alpha channel out: image[..., :3]" if four else REMEDY
        raise DataError(f"{shape} is no picture's shape", where=where, remedy=remedy)
    if picture.dtype != np.uint8:
        unit = picture.dtype.kind == "f" and picture.max() <= 1
        remedy = "scale it: (image * 255).round().astype('uint8')" if unit else REMEDY
        raise DataError(f"expected bytes, given {picture.dtype}", where=where, remedy=remedy)
    return picture


def prepare(picture: Bytes, step: Image, dtype: str) -> Array:
    """The model's input for one picture, batch axis included.

    Args:
        picture: ``[height, width, 1 or 3]``, RGB.
        step: What to do.
        dtype: The model input's; values are rounded for integers.

    Raises:
        DataError: The picture does not fit the step.
    """
    picture = _channels(picture, step.channels)
    picture = _resize(picture, step)
    if step.crop:
        picture = _crop(picture, *step.crop)
    values = _normalize(picture, step)
    if step.pad:
        values = _pad(values, *step.pad)
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    if step.layout == "NCHW":
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values[None]).astype(dtype, copy=False)


def _channels(picture: Bytes, wanted: Channels) -> Bytes:
    if wanted == "L":
        return picture if picture.shape[2] == 1 else _luma(picture)
    if picture.shape[2] == 1:
        picture = np.repeat(picture, 3, axis=2)
    return picture[:, :, ::-1] if wanted == "BGR" else picture


def _luma(picture: Bytes) -> Bytes:
    """ITU-R 601-2 in Pillow's 16-bit fixed point."""
    total = picture.astype(np.uint32) @ np.asarray([19595, 38470, 7471], np.uint32)
    return ((total + 0x8000) >> 16).astype(np.uint8)[:, :, None]


def _resize(picture: Bytes, step: Image) -> Bytes:
    size = step.size
    if step.shorter:
        size = keep_proportion(picture.shape[0], picture.shape[1], step.shorter)
    return resize(picture, *size, step.resample) if size else picture


def _crop(picture: Bytes, height: int, width: int) -> Bytes:
    """The middle; what reaches over the picture's edge is black."""
    missing = [
        max(size - have, 0) for size, have in zip((height, width), picture.shape, strict=False)
    ]
    if any(missing):
        around = [(-(-lack // 2), lack // 2) for lack in missing]  # the odd pixel comes before
        picture = np.pad(picture, [*around, (0, 0)])
    top = (picture.shape[0] - height) // 2
    left = (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]


def _normalize(picture: Bytes, step: Image) -> Float32:
    values = (picture * np.float64(step.scale)).astype(np.float32)
    if step.offset:
        values += np.float32(step.offset)
    if step.mean:
        values -= np.asarray(step.mean, np.float32)
    if step.std:
        values /= np.asarray(step.std, np.float32)
    return values


def _pad(values: Float32, height: int, width: int) -> Float32:
    lack = (height - values.shape[0], width - values.shape[1])
    if min(lack) < 0:
        raise DataError(
            f"{values.shape[0]} x {values.shape[1]} is larger than {height} x {width}",
            where="image",
            remedy="give a smaller picture",
        )
    return np.pad(values, [(0, lack[0]), (0, lack[1]), (0, 0)])
