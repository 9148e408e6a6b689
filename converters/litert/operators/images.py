"""Operators that make images larger, smaller, or of other depth."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.litert import resizing
from converters.litert.call import Call, lowers
from converters.litert.operators.convolution import VALID, pad
from converters.litert.operators.indexing import gathered
from converters.litert.tensors import Array, Shape, Tensor, channels_last, scaled, shifted, unknown
from converters.litert.weights import Layer, bias_tensor, layer_tensor


@lowers("DepthToSpace", codes="moving")
def _depth_to_space(call: Call) -> None:
    block = call.node.attributes.get_int("blocksize", 1)
    data = call.tensor(0, channels_last(4))
    batch, height, width, depth = data.shape
    if not isinstance(depth, int):
        raise call.unsupported("its number of channels is known only at run time")
    if call.node.attributes.get_string("mode", "DCR") == "CRD":
        order = np.arange(depth).reshape(depth // block**2, block**2).T.reshape(-1)
        data = gathered(call, data, order, 3)
    shape = (batch, scaled(height, block), scaled(width, block), depth // block**2)
    options = schema.DepthToSpaceOptionsT(blockSize=block)
    call.give(call.emit("DEPTH_TO_SPACE", [data], shape, options=options), channels_last(4))


@lowers("SpaceToDepth", codes="moving")
def _space_to_depth(call: Call) -> None:
    block = call.node.attributes.get_int("blocksize", 1)
    data = call.tensor(0, channels_last(4))
    if call.node.attributes.get_string("mode", "DCR") != "DCR":
        raise call.unsupported("it orders channels by depth first")
    batch, height, width, depth = data.shape
    sides = [size // block if isinstance(size, int) else None for size in (height, width)]
    shape = (batch, *sides, scaled(depth, block**2))
    options = schema.SpaceToDepthOptionsT(blockSize=block)
    call.give(call.emit("SPACE_TO_DEPTH", [data], shape, options=options), channels_last(4))


@lowers("Resize", codes="moving")
def _resize(call: Call) -> None:
    plan = resizing.plan(call)
    perm = channels_last(len(call.shape()))
    if plan.native is not None:
        op, options = plan.native
        data = call.tensor(0, perm)
        sides, target = _target_sides(call, plan.changes)
        shape = (data.shape[0], *sides, data.shape[3])
        call.give(call.emit(op, [data, target], shape, options=options), perm)
        return
    if plan.mode != "nearest":
        call.refuse_codes()
    data = call.tensor(0, perm)
    for place, axis in enumerate(perm):
        table = plan.tables.get(axis)
        if table is not None and plan.mode == "nearest":
            data = gathered(call, data, table.argmax(1), place)
        elif table is not None:
            data = _interpolated(call, data, table, place)
    call.give(data, perm)


def _target_sides(call: Call, changes: dict[int, resizing.Change]) -> tuple[Shape, Tensor]:
    """Height and width of a resized image, and the tensor that says them."""
    had = call.shape()[2:]
    sides = tuple(changes[axis].count if axis in changes else had[axis - 2] for axis in (2, 3))
    if None not in sides:
        return sides, call.values.sizes(sides)
    factors = [int(changes[axis].scale or 1) if axis in changes else 1 for axis in (2, 3)]
    inputs = [call.values.sizes(had), call.values.integers(factors)]
    return sides, call.emit("MUL", inputs, options=schema.MulOptionsT())


def _interpolated(call: Call, data: Tensor, matrix: Array, place: int) -> Tensor:
    """Elements along an axis as weighted sums of such elements."""
    order = (*(axis for axis in range(data.rank) if axis != place), place)
    moved = call.values.transpose(data, order)
    weight = call.values.graph.constant(matrix)
    options = schema.FullyConnectedOptionsT(keepNumDims=True)
    shape = (*moved.shape[:-1], len(matrix))
    result = call.emit("FULLY_CONNECTED", [moved, weight, None], shape, options=options)
    return call.values.transpose(result, tuple(order.index(axis) for axis in range(data.rank)))


@lowers("ConvTranspose")
def _conv_transpose(call: Call) -> None:
    attributes, shape = call.node.attributes, call.held(1).sizes
    if not call.held(1).is_constant or (call.has(2) and not call.held(2).is_constant):
        raise call.unsupported("its weight or bias is computed at run time")
    spatial = len(shape) - 2
    if spatial > 2 or any(step != 1 for step in attributes.get_ints("dilations", (1,) * spatial)):
        raise call.unsupported("its kernel has holes or more than two axes")
    wide = (1,) * (2 - spatial)
    kernel = (*wide, *shape[2:])
    strides = (*wide, *attributes.get_ints("strides", (1,) * spatial))
    data = call.tensor(0, channels_last(spatial + 2))
    if spatial == 1:
        data = call.unsqueeze(data, (1,))
    sides = _cuts(call, data, kernel, strides, spatial)
    groups = attributes.get_int("group", 1)
    parts = [
        _transposed(call, part, group, groups, kernel, strides)
        for group, part in enumerate(_in_groups(call, data, groups))
    ]
    result = parts[0]
    if groups > 1:
        channels = shape[1] * groups
        options = schema.ConcatenationOptionsT(axis=3)
        result = call.emit("CONCATENATION", parts, (*result.shape[:-1], channels), options=options)
    result = _cut(call, result, sides)
    if spatial == 1:
        result = call.squeeze(result, (1,))
    call.give(result, channels_last(result.rank))


def _cuts(
    call: Call, data: Tensor, kernel: tuple[int, ...], strides: tuple[int, ...], spatial: int
) -> list[tuple[int, int]]:
    """What to take away (or, negative, to add) before and behind each spatial axis."""
    attributes = call.node.attributes
    wide = (0,) * (2 - spatial)
    extra = (*wide, *attributes.get_ints("output_padding", (0,) * spatial))
    pads = attributes.get_ints("pads", (0,) * 2 * spatial)
    begin, end = (*wide, *pads[:spatial]), (*wide, *pads[spatial:])
    auto = attributes.get_string("auto_pad", "NOTSET")
    asked = attributes.get_ints("output_shape", None)
    if auto in ("NOTSET", "VALID") and asked is None:
        return [(b, e - more) for b, e, more in zip(begin, end, extra, strict=True)]
    sides = []
    for axis in range(2):
        size = data.shape[1 + axis]
        if not isinstance(size, int):
            raise call.unsupported("its padding depends on a size known only at run time")
        target = size * strides[axis]
        if asked is not None:
            target = (*(1,) * (2 - spatial), *asked[-spatial:])[axis]
        total = (size - 1) * strides[axis] + kernel[axis] + extra[axis] - target
        half = max(0, total) // 2
        before, behind = (total - half, half) if auto == "SAME_LOWER" else (half, total - half)
        sides.append((before, behind - extra[axis]))
    return sides


def _in_groups(call: Call, data: Tensor, groups: int) -> list[Tensor]:
    if groups == 1:
        return [data]
    size = call.held(1).sizes[0] // groups
    shape = (*data.shape[:-1], size)
    parts = [Tensor(call.values.scope, data.dtype, shape) for _ in range(groups)]
    options = schema.SplitOptionsT(numSplits=groups)
    call.values.graph.emit("SPLIT", [call.values.integers(3), data], parts, options)
    return parts


def _transposed(
    call: Call,
    data: Tensor,
    group: int,
    groups: int,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
) -> Tensor:
    """The whole result of one group, nothing cut off."""
    array, bias = call.constant(1), call.constant(2)
    assert array is not None, "checked before"
    count = array.shape[0] // groups
    part = array[group * count : (group + 1) * count]
    channels = part.shape[1]
    part = part.reshape(count, channels, *kernel).transpose(1, 2, 3, 0)
    weight = layer_tensor(call, Layer(part, None, channels, 0), 0)
    inner = np.zeros(channels, np.float32) if bias is None else bias[group * channels :][:channels]
    sizes = tuple(
        (size - 1) * step + reach if isinstance(size, int) else None
        for size, step, reach in zip(data.shape[1:3], strides, kernel, strict=True)
    )
    shape = (data.shape[0], *sizes, channels)
    target = _target(call, data, shape, kernel, strides)
    options = schema.TransposeConvOptionsT(padding=VALID, strideH=strides[0], strideW=strides[1])
    inputs = [target, weight, data, bias_tensor(call, inner, data, weight)]
    return call.emit("TRANSPOSE_CONV", inputs, shape, data.dtype, options)


def _target(
    call: Call, data: Tensor, shape: Shape, kernel: tuple[int, ...], strides: tuple[int, ...]
) -> Tensor:
    """The shape of the result as a tensor, computed from the data's where it is not known."""
    if not unknown(shape):
        return call.values.integers(shape)
    have = call.values.shape_of(data)
    factor = call.values.integers([1, *strides, 0])
    offset = [0, *(k - s for k, s in zip(kernel, strides, strict=True)), shape[-1]]
    scaled = call.emit("MUL", [have, factor], (4,), options=schema.MulOptionsT())
    inputs = [scaled, call.values.integers(offset)]
    return call.emit("ADD", inputs, (4,), options=schema.AddOptionsT())


def _cut(call: Call, data: Tensor, sides: list[tuple[int, int]]) -> Tensor:
    """The result without what padding takes away, and with what ``output_padding`` adds."""
    added = [(0, 0), *((0, max(0, -end)) for _, end in sides), (0, 0)]
    data = pad(call, data, added)
    begin = [0, *(start for start, _ in sides), 0]
    end = [0, *(-max(0, stop) for _, stop in sides), 0]
    if not any(begin) and not any(end):
        return data
    mask = sum(1 << axis for axis, stop in enumerate(end) if stop == 0)
    shape = tuple(
        shifted(size, stop - start) if start or stop else size
        for size, start, stop in zip(data.shape, begin, end, strict=True)
    )
    bounds = [call.values.integers(items) for items in (begin, end, [1] * 4)]
    options = schema.StridedSliceOptionsT(endMask=mask)
    return call.emit("STRIDED_SLICE", [data, *bounds], shape, options=options)
