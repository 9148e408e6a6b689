"""How ``Resize`` maps each axis: by the engine's kernel where it agrees, else exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.litert.call import Call
from converters.litert.tensors import Array


@dataclass(frozen=True)
class Plan:
    """One resizing.

    Attributes:
        mode: ``nearest``, ``linear`` or ``cubic``.
        sizes: Sizes of the result's axes.
        op: The engine's kernel.
        options: Its options.
        is_native: Whether that kernel gives what ONNX asks for.
        tables: Per changed axis, the weights [new, old] of old elements in new ones.
    """

    mode: str
    sizes: tuple[int, ...]
    op: str
    options: Any
    is_native: bool
    tables: dict[int, Array]


def plan(call: Call) -> Plan:
    """How to compute a ``Resize`` node."""
    attributes, shape = call.node.attributes, call.shape()
    mode = attributes.get_string("mode", "nearest")
    way = attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if attributes.get_int("antialias", 0) or way not in COORDINATES:
        raise call.unsupported(f"it resizes with {way}, or against aliasing")
    if attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.unsupported("it keeps the ratio of the sides")
    rank = len(shape)
    axes = [axis % rank for axis in attributes.get_ints("axes", tuple(range(rank)))]
    new = _changes(call, axes)
    tables = {
        axis: _table(call, mode, way, shape[axis] or 1, *change) for axis, change in new.items()
    }
    sizes = tuple(new[axis][0] if axis in new else (shape[axis] or 1) for axis in range(rank))
    op, options, computes = _native(mode, way)
    agrees = computes is not None and all(
        np.allclose(table, computes(shape[axis] or 1, sizes[axis]), atol=1e-5)
        for axis, table in tables.items()
    )
    native = agrees and all(axis >= rank - 2 for axis in tables)
    return Plan(mode, sizes, op, options, native, tables)


def _changes(call: Call, axes: list[int]) -> dict[int, tuple[int, float]]:
    """Per axis that changes its size: the new size, and the ratio to compute with."""
    scales, asked = (_given(call.constant(index)) for index in (2, 3))
    if asked is None and scales is None:
        raise call.unsupported("its sizes are known only at run time")
    found: dict[int, tuple[int, float]] = {}
    for place, axis in enumerate(axes):
        size = call.shape()[axis]
        if scales is not None and scales[place] == 1:
            continue
        if size is None:
            if asked is not None and axis < 2:
                continue  # the batch, copied
            raise call.unsupported("it resizes an axis of a size known only at run time")
        if asked is not None:
            count, ratio = int(asked[place]), int(asked[place]) / size
        else:
            assert scales is not None, "one of them is given"
            count, ratio = int(size * scales[place]), float(scales[place])
        if count != size or ratio != 1:
            found[axis] = count, ratio
    return found


def _given(array: Array | None) -> Array | None:
    return None if array is None or not array.size else array


def _table(call: Call, mode: str, way: str, size: int, count: int, ratio: float) -> Array:
    """Weights [count, size] of old elements in new ones, as the ONNX standard defines them."""
    places = COORDINATES[way](np.arange(count, dtype=np.float64), size, count, ratio)
    if mode == "nearest":
        rounding = ROUNDING[call.node.attributes.get_string("nearest_mode", "round_prefer_floor")]
        picked = np.clip(rounding(places), 0, size - 1).astype(np.int64)
        one_hot: Array = np.eye(size, dtype=np.float32)[picked]
        return one_hot
    floor = np.floor(places)
    offset = places - floor
    if mode == "linear":
        taps = {0: 1 - offset, 1: offset}
    else:
        a = call.node.attributes.get_float("cubic_coeff_a", -0.75)
        taps = {k: _cubic(offset - k, a) for k in (-1, 0, 1, 2)}
    outside = bool(call.node.attributes.get_int("exclude_outside", 0))
    table = np.zeros((count, size))
    for tap, weight in taps.items():
        at = floor + tap
        weight = np.where((at < 0) | (at >= size), 0, weight) if outside else weight
        np.add.at(table, (np.arange(count), np.clip(at, 0, size - 1).astype(int)), weight)
    if outside:
        table /= table.sum(1, keepdims=True)
    return table.astype(np.float32)


def _cubic(distance: Array, a: float) -> Array:
    """Keys' kernel (1981)."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def _half_pixel(x: Array, size: int, count: int, ratio: float) -> Array:
    return (x + 0.5) / ratio - 0.5


def _pytorch(x: Array, size: int, count: int, ratio: float) -> Array:
    return _half_pixel(x, size, count, ratio) if count > 1 else x * 0


def _symmetric(x: Array, size: int, count: int, ratio: float) -> Array:
    adjusted = count / (ratio * size)
    return size / 2 * (1 - adjusted) + _half_pixel(x, size, count, ratio)


def _corners(x: Array, size: int, count: int, ratio: float) -> Array:
    return x * (size - 1) / (count - 1) if count > 1 else x * 0


def _asymmetric(x: Array, size: int, count: int, ratio: float) -> Array:
    return x / ratio


COORDINATES: dict[str, Callable[[Array, int, int, float], Array]] = {
    "half_pixel": _half_pixel,
    "pytorch_half_pixel": _pytorch,
    "half_pixel_symmetric": _symmetric,
    "align_corners": _corners,
    "asymmetric": _asymmetric,
}
ROUNDING: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": lambda x: np.floor(x),
    "ceil": lambda x: np.ceil(x),
}


def _native(mode: str, way: str) -> tuple[str, Any, Callable[[int, int], Array] | None]:
    """The engine's kernel for a mode, its options, and the table that it computes."""
    half = way in ("half_pixel", "pytorch_half_pixel")
    corners = way == "align_corners"
    if mode == "nearest":
        options = schema.ResizeNearestNeighborOptionsT(halfPixelCenters=half)

        def picked(size: int, count: int) -> Array:
            places = (np.arange(count) + (0.5 if half else 0)) * np.float32(size / count)
            return np.eye(size, dtype=np.float32)[
                np.clip(np.floor(places), 0, size - 1).astype(int)
            ]

        return "RESIZE_NEAREST_NEIGHBOR", options, picked
    options = schema.ResizeBilinearOptionsT(alignCorners=corners, halfPixelCenters=half)

    def blended(size: int, count: int) -> Array:
        kind = "half_pixel" if half else "align_corners" if corners else "asymmetric"
        places = COORDINATES[kind](np.arange(count, dtype=np.float64), size, count, count / size)
        floor = np.floor(places)
        table = np.zeros((count, size))
        for tap, weight in ((0, 1 - places + floor), (1, places - floor)):
            at = np.clip(floor + tap, 0, size - 1).astype(int)
            np.add.at(table, (np.arange(count), at), weight)
        return table.astype(np.float32)

    return "RESIZE_BILINEAR", options, blended if mode == "linear" else None
