"""Operators that make images larger, smaller, or of other depth."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.litert import resizing
from converters.litert.call import Call, lowers
from converters.litert.operators.convolution import VALID, pad
from converters.litert.operators.joining import gathered
from converters.litert.tensors import Array, Shape, Tensor, channels_last
from converters.litert.weights import Layer, bias_tensor, layer_tensor


@lowers("DepthToSpace", codes="moving")
def _depth_to_space(call: Call) -> None:
    block = call.node.attributes.get_int("blocksize", 1)
    data = call.tensor(0, channels_last(4))
    batch, height, width, depth = data.shape
    if depth is None:
        raise call.unsupported("its number of channels is known only at run time")
    if call.node.attributes.get_string("mode", "DCR") == "CRD":
        order = np.arange(depth).reshape(depth // block**2, block**2).T.reshape(-1)
        data = gathered(call, data, order, 3)
    shape = (batch, _times(height, block), _times(width, block), depth // block**2)
    options = schema.DepthToSpaceOptionsT(blockSize=block)
    call.give(call.emit("DEPTH_TO_SPACE", [data], shape, options=options), channels_last(4))


@lowers("SpaceToDepth", codes="moving")
def _space_to_depth(call: Call) -> None:
    block = call.node.attributes.get_int("blocksize", 1)
    data = call.tensor(0, channels_last(4))
    batch, height, width, depth = data.shape
    sides = [None if size is None else size // block for size in (height, width)]
    shape = (batch, *sides, _times(depth, block**2))
    options = schema.SpaceToDepthOptionsT(blockSize=block)
    call.give(call.emit("SPACE_TO_DEPTH", [data], shape, options=options), channels_last(4))


def _times(size: int | None, factor: int) -> int | None:
    return None if size is None else size * factor


@lowers("Resize", codes="moving")
def _resize(call: Call) -> None:
    plan = resizing.plan(call)
    rank = len(call.shape())
    perm = channels_last(rank)
    if plan.is_native and rank == 4:
        data = call.tensor(0, perm)
        height, width = plan.sizes[2:]
        target = call.values.integers([height, width])
        shape = (data.shape[0], height, width, data.shape[-1])
        call.give(call.emit(plan.op, [data, target], shape, options=plan.options), perm)
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
    attributes, shape = call.node.attributes, call.held(1).shape
    if not call.held(1).is_constant or (call.has(2) and not call.held(2).is_constant):
        raise call.unsupported("its weight or bias is computed at run time")
    spatial = len(shape) - 2
    if spatial > 2 or any(step != 1 for step in attributes.get_ints("dilations", (1,) * spatial)):
        raise call.unsupported("its kernel has holes or more than two axes")
    wide = (1,) * (2 - spatial)
    kernel = (*wide, *(size or 0 for size in shape[2:]))
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
        channels = sum(part.shape[-1] or 0 for part in parts)
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
        return [(b, e - x) for b, e, x in zip(begin, end, extra, strict=True)]
    sides = []
    for axis in range(2):
        size = data.shape[1 + axis]
        if size is None:
            raise call.unsupported("its padding depends on a size known only at run time")
        target = size * strides[axis]
        if asked is not None:
            target = (*(1,) * (2 - spatial), *asked[-spatial:])[axis]
        total = (size - 1) * strides[axis] + kernel[axis] - target
        less = total // 2
        sides.append((less, total - less) if auto != "SAME_LOWER" else (total - less, less))
    return sides


def _in_groups(call: Call, data: Tensor, groups: int) -> list[Tensor]:
    if groups == 1:
        return [data]
    size = (data.shape[-1] or 0) // groups
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
        None if size is None else (size - 1) * step + reach
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
    if None not in shape:
        return call.values.integers(shape)
    have = call.values.run_time_shape(data)
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
        None if size is None else size - start + stop
        for size, start, stop in zip(data.shape, begin, end, strict=True)
    )
    bounds = [call.values.integers(items) for items in (begin, end, [1] * 4)]
    options = schema.StridedSliceOptionsT(endMask=mask)
    return call.emit("STRIDED_SLICE", [data, *bounds], shape, options=options)
