"""Pictures from files: ``.npy`` and binary PNM by numpy alone, anything else by Pillow."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from edge_sdk.errors import DataError
from edge_sdk.runtime.media.resize import Bytes

# Magic, width, height and largest value, between blanks and comments.
PNM = re.compile(rb"P([56])" + rb"(?:\s|#[^\n]*\n)+(\d+)" * 3 + rb"\s")


def read_image(path: Path) -> Bytes:
    """A picture as ``[height, width, 1 or 3]``, upright, RGB.

    Raises:
        DataError: It cannot be read, or Pillow is needed and absent.
    """
    try:
        if path.suffix == ".npy":
            return _read_npy(path)
        with path.open("rb") as file:
            head = file.read(2)
        return _read_pnm(path) if head in (b"P5", b"P6") else _read_any(path)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(path)) from error


def _read_npy(path: Path) -> Bytes:
    from edge_sdk.runtime.media.image import check_picture

    try:
        return check_picture(np.load(path, allow_pickle=False), str(path))
    except (ValueError, EOFError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error


def _read_pnm(path: Path) -> Bytes:
    data = path.read_bytes()
    head = PNM.match(data)
    if head is None:
        raise DataError("has no complete header", where=str(path))
    kind, width, height, largest = (int(field) for field in head.groups())
    shape = (height, width, 3 if kind == 6 else 1)
    if largest != 255 or len(data) - head.end() < np.prod(shape) or 0 in shape:
        raise DataError(f"{shape} bytes of 255 at most do not fit the file", where=str(path))
    pixels = np.frombuffer(data, np.uint8, int(np.prod(shape)), head.end())
    return pixels.reshape(shape)


def _read_any(path: Path) -> Bytes:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DataError(
            "only .npy, .ppm and .pgm are read without Pillow",
            where=str(path),
            remedy="pip install 'edge-sdk[image]', or give the picture as an array",
        ) from error
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Image.DecompressionBombError as error:
        raise DataError(str(error), where=str(path), remedy="shrink it first") from error
