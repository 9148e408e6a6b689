"""What changes or tells shapes, and what resizes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converters.litert_import.call import Call, operator

RESIZES = {"RESIZE_BILINEAR": "linear", "RESIZE_NEAREST_NEIGHBOR": "nearest"}


@operator("RESHAPE")
def reshape(call: Call) -> None:
    """To a given shape."""
    if call.has(1):
        target = call.int64(1)
    else:
        target = call.values.array(call.option("newShape", []), "int64")
    call.set(call.emit("Reshape", [call.get(0), target]))


@operator("SQUEEZE")
def squeeze(call: Call) -> None:
    """Without axes of one element."""
    axes = [int(axis) for axis in call.option("squeezeDims", [])]
    axes = axes or [axis for axis, size in enumerate(call.shape(0)) if size == 1]
    call.set(call.emit("Squeeze", [call.get(0), call.values.array(axes, "int64")]))


@operator("EXPAND_DIMS")
def expand_dims(call: Call) -> None:
    """With a new axis of one element."""
    axes = call.values.array(call.numbers(1), "int64")
    call.set(call.emit("Unsqueeze", [call.get(0), axes]))


@operator("SHAPE")
def shape(call: Call) -> None:
    """The shape itself."""
    found = call.emit("Shape", [call.get(0)])
    call.set(call.emit("Cast", [found], to=call.out_dtype))


@operator("RANK")
def rank(call: Call) -> None:
    """The number of axes."""
    call.values.fold(call.node.outputs[0], np.asarray(len(call.shape(0)), np.int32))


@operator("FILL")
def fill(call: Call) -> None:
    """One value, everywhere."""
    call.set(call.emit("Expand", [call.get(1), call.int64(0)]))


@operator("BROADCAST_TO")
def broadcast(call: Call) -> None:
    """Repeated where an axis has one element."""
    call.set(call.emit("Expand", [call.get(0), call.int64(1)]))


@operator("BROADCAST_ARGS")
def broadcast_shapes(call: Call) -> None:
    """The shape that two shapes broadcast to."""
    lengths = [call.shape(0)[0], call.shape(1)[0]]
    if min(lengths) < 0:
        raise call.refuse("the number of axes is free")
    rows = []
    for position, length in enumerate(lengths):
        ones = call.values.array([1] * (max(lengths) - length), "int64")
        rows.append(call.emit("Concat", [ones, call.int64(position)], axis=0))
    call.set(call.emit("Cast", [call.emit("Max", rows)], to=call.out_dtype))


@operator("ZEROS_LIKE")
def zeros_like(call: Call) -> None:
    """Zeros in the operand's shape."""
    zero = call.values.array(np.zeros((), call.out_dtype.numpy()))
    call.set(call.emit("Expand", [zero, call.emit("Shape", [call.get(0)])]))


@operator("RANGE")
def range_(call: Call) -> None:
    """Numbers in a row."""
    call.set(call.emit("Range", [call.get(i) for i in range(3)]))


@operator(*RESIZES)
def resize(call: Call) -> None:
    """A picture in another size, sampled as the options say."""
    mode = RESIZES[call.node.op]
    corners, centers = call.option("alignCorners", False), call.option("halfPixelCenters", False)
    where = "align_corners" if corners else "half_pixel" if centers else "asymmetric"
    # Of two neighbours as near, TensorFlow takes the second; without centers the one before.
    nearest = "round_prefer_ceil" if corners or centers else "floor"
    extra = {"nearest_mode": nearest} if mode == "nearest" else {}
    value = call.emit(
        "Resize",
        [call.get(0, first=True), None, None, _size(call)],
        mode=mode,
        coordinate_transformation_mode=where,
        **extra,
    )
    call.set(value, first=True)


def _size(call: Call) -> ir.Value:
    """The new size with batch and channels, which may be free."""
    kept = [call.shape(0)[0], call.shape(0)[3]]
    if min(kept) >= 0 and call.known(1) is not None:
        return call.values.array([*kept, *call.numbers(1)], "int64")
    found = call.emit("Shape", [call.get(0, first=True)], start=0, end=2)
    return call.emit("Concat", [found, call.int64(1)], axis=0)


@operator("SPACE_TO_BATCH_ND")
def space_to_batch(call: Call) -> None:
    """Every n-th row and column of a padded picture as a picture of its own."""
    blocks, pads = call.numbers(1), call.constant(2).tolist()
    sizes = call.shape(0)
    spatial = range(1, 1 + len(blocks))
    rest = sizes[1 + len(blocks) :]
    padded = [sizes[axis] + sum(pads[axis - 1]) for axis in spatial]
    if min((*sizes[1:], *padded)) < 0:
        raise call.refuse("the size of the picture is free")
    rows = [[0, 0], *pads, *([0, 0] for _ in rest)]
    flat = [row[0] for row in rows] + [row[1] for row in rows]
    value = call.emit("Pad", [call.get(0), call.values.array(flat, "int64")])
    split = [size for n, b in zip(padded, blocks, strict=True) for size in (n // b, b)]
    value = _reshaped(call, value, [-1, *split, *rest])
    count = len(blocks)
    order = [*(2 * i + 2 for i in range(count)), 0, *(2 * i + 1 for i in range(count))]
    order += range(2 * count + 1, 2 * count + 1 + len(rest))
    value = call.emit("Transpose", [value], perm=order)
    small = [n // b for n, b in zip(padded, blocks, strict=True)]
    call.set(_reshaped(call, value, [-1, *small, *rest]))


@operator("BATCH_TO_SPACE_ND")
def batch_to_space(call: Call) -> None:
    """The pictures of :func:`space_to_batch` as one again, without what was padded."""
    blocks, crops = call.numbers(1), call.constant(2).tolist()
    sizes = call.shape(0)
    count = len(blocks)
    if min(sizes[1:]) < 0:
        raise call.refuse("the size of the picture is free")
    rest = sizes[1 + count :]
    value = _reshaped(call, call.get(0), [*blocks, -1, *sizes[1:]])
    order = [count]
    for i in range(count):
        order += [count + 1 + i, i]
    order += range(2 * count + 1, 2 * count + 1 + len(rest))
    value = call.emit("Transpose", [value], perm=order)
    large = [size * block for size, block in zip(sizes[1:], blocks, strict=False)]
    value = _reshaped(call, value, [-1, *large, *rest])
    begins = [crop[0] for crop in crops]
    ends = [size - crop[1] for size, crop in zip(large, crops, strict=True)]
    rows = [call.values.array(row, "int64") for row in (begins, ends, range(1, 1 + count))]
    call.set(call.emit("Slice", [value, *rows]))


def _reshaped(call: Call, value: ir.Value, shape: list[int]) -> ir.Value:
    return call.emit("Reshape", [value, call.values.array(shape, "int64")])
