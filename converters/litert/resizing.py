"""How ``Resize`` maps each axis: by the engine's kernel where it agrees, else exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.litert import sizes
from converters.litert.call import Call
from converters.litert.tensors import Array, Size


@dataclass(frozen=True)
class Change:
    """What happens to one axis.

    Attributes:
        size: Its size before.
        count: Its size behind.
        scale: The ratio to compute with; ``None`` for that of the sizes.
    """

    size: Size
    count: Size
    scale: float | None


@dataclass(frozen=True)
class Plan:
    """One resizing.

    Attributes:
        mode: ``nearest``, ``linear`` or ``cubic``.
        changes: The axes that change.
        native: The engine's kernel and its options, if it gives what ONNX asks for.
        tables: Otherwise, per changed axis, the weights [new, old] of old elements in new ones.
    """

    mode: str
    changes: dict[int, Change]
    native: tuple[str, Any] | None
    tables: dict[int, Array]


def plan(call: Call) -> Plan:
    """How to compute a ``Resize`` node."""
    attributes, rank = call.node.attributes, len(call.shape())
    mode = attributes.get_string("mode", "nearest")
    way = attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if attributes.get_int("antialias", 0) or way not in COORDINATES:
        raise call.unsupported(f"it resizes with {way}, or against aliasing")
    if attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.unsupported("it keeps the ratio of the sides")
    changes = _changes(call)
    native = _native(mode, way)
    image = rank == 4 and all(axis >= 2 for axis in changes)
    if (
        image
        and native is not None
        and all(_agrees(call, mode, way, change) for change in changes.values())
    ):
        return Plan(mode, changes, native, {})
    tables = {}
    for axis, change in changes.items():
        if not isinstance(change.size, int) or not isinstance(change.count, int):
            raise call.unsupported("it resizes an axis of a size known only at run time")
        ratio = change.scale or change.count / change.size
        tables[axis] = _table(call, mode, way, change.size, change.count, ratio)
    return Plan(mode, changes, None, tables)


def _changes(call: Call) -> dict[int, Change]:
    shape = call.shape()
    axes = call.node.attributes.get_ints("axes", tuple(range(len(shape))))
    scales = call.constant(2)
    scales = None if scales is None or not scales.size else scales
    if scales is None and not call.has(3):
        raise call.unsupported("its sizes are known only at run time")
    target = None if scales is not None else sizes.asked(call, 3, len(axes))
    found: dict[int, Change] = {}
    for place, axis in enumerate(axes):
        size = shape[axis]
        if target is not None:
            change = Change(size, target[place], None)
        else:
            assert scales is not None, "one of them is given"
            scale = float(scales[place])
            change = Change(size, int(size * scale) if isinstance(size, int) else None, scale)
        # A fixed size asked for an open batch or channel axis is the one it was exported at.
        copied = not isinstance(size, int) and axis < 2
        if size != change.count and change.scale != 1 and not copied:
            found[axis % len(shape)] = change
    return found


def _agrees(call: Call, mode: str, way: str, change: Change) -> bool:
    """Whether the engine's kernel gives what ONNX asks for on one axis."""
    size, count, scale = change.size, change.count, change.scale
    if isinstance(size, int) and isinstance(count, int):
        wanted = _table(call, mode, way, size, count, scale or count / size)
        return np.allclose(wanted, _native_table(mode, way, size, count), atol=1e-5)
    if scale is not None:
        # A whole factor does the same at every size.
        return scale == int(scale) and _agrees(call, mode, way, Change(8, 8 * int(scale), scale))
    rounding = call.node.attributes.get_string("nearest_mode", "round_prefer_floor")
    return mode == "linear" or (way == "asymmetric" and rounding == "floor")


def _table(call: Call, mode: str, way: str, size: int, count: int, ratio: float) -> Array:
    """Weights [count, size] of old elements in new ones, as the ONNX standard defines them."""
    places = COORDINATES[way](np.arange(count, dtype=np.float64), size, count, ratio)
    if mode == "nearest":
        rounding = ROUNDING[call.node.attributes.get_string("nearest_mode", "round_prefer_floor")]
        picked = np.clip(rounding(places), 0, size - 1).astype(np.int64)
        one_hot: Array = np.eye(size, dtype=np.float32)[picked]
        return one_hot
    offset = places - np.floor(places)
    if mode == "linear":
        return _weighted(size, places, {0: 1 - offset, 1: offset})
    a = call.node.attributes.get_float("cubic_coeff_a", -0.75)
    outside = bool(call.node.attributes.get_int("exclude_outside", 0))
    taps = {tap: _cubic(offset - tap, a) for tap in (-1, 0, 1, 2)}
    return _weighted(size, places, taps, outside)


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


def _native(mode: str, way: str) -> tuple[str, Any] | None:
    """The engine's kernel for a mode, with its options."""
    half = way in ("half_pixel", "pytorch_half_pixel")
    if mode == "nearest":
        return "RESIZE_NEAREST_NEIGHBOR", schema.ResizeNearestNeighborOptionsT(False, half)
    if mode == "linear":
        corners = way == "align_corners"
        return "RESIZE_BILINEAR", schema.ResizeBilinearOptionsT(corners, half)
    return None


def _native_table(mode: str, way: str, size: int, count: int) -> Array:
    """What the engine's kernel computes along an axis."""
    half = way in ("half_pixel", "pytorch_half_pixel")
    if mode == "nearest":
        places = np.floor((np.arange(count) + (0.5 if half else 0)) * np.float32(size / count))
        one_hot: Array = np.eye(size, dtype=np.float32)[np.clip(places, 0, size - 1).astype(int)]
        return one_hot
    kind = "half_pixel" if half else "align_corners" if way == "align_corners" else "asymmetric"
    places = COORDINATES[kind](np.arange(count, dtype=np.float64), size, count, count / size)
    return _weighted(size, places, {0: 1 - places % 1, 1: places % 1})


def _weighted(size: int, places: Array, taps: dict[int, Array], outside: bool = False) -> Array:
    """Weights of elements at distances from the floor of each place."""
    table = np.zeros((len(places), size))
    for tap, weight in taps.items():
        at = np.floor(places) + tap
        weight = np.where((at < 0) | (at >= size), 0, weight) if outside else weight
        np.add.at(table, (np.arange(len(places)), np.clip(at, 0, size - 1).astype(int)), weight)
    if outside:
        table /= table.sum(1, keepdims=True)
    weights: Array = table.astype(np.float32)
    return weights
