"""Operators that cut values, put them together or surround them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.litert.arithmetic import Math
from converters.litert.call import Call, lowers
from converters.litert.operators.convolution import pad
from converters.litert.operators.indexing import gathered
from converters.litert.tensors import BOOL, INT32, Size, Tensor, identity, shifted, with_size

END = np.iinfo(np.int32).max


@lowers("Concat", codes="rescaling")
def _concat(call: Call) -> None:
    rank = max(len(call.shape(index)) for index in range(len(call.node.inputs)))
    axis = call.axis(rank=rank)
    operands = [call.held(index) for index in range(len(call.node.inputs))]
    moved = [held.perm for held in operands if not held.is_constant and held.perm != identity(rank)]
    perm = moved[0] if moved else identity(rank)
    place = perm.index(axis)
    tensors = [call.values.form(held, perm) for held in operands if held.shape[axis] != 0]
    if call.target is not None:
        tensors = [call.values.requantize(tensor, call.target) for tensor in tensors]
    sizes_there = [tensor.shape[place] for tensor in tensors]
    known = [size for size in sizes_there if isinstance(size, int)]
    total = sum(known) if len(known) == len(sizes_there) else None
    shape = tuple(
        total if at == place else _agreed(column)
        for at, column in enumerate(zip(*(tensor.shape for tensor in tensors), strict=True))
    )
    if len(tensors) == 1:
        call.give(tensors[0], perm)
        return
    options = schema.ConcatenationOptionsT(axis=place)
    call.give(call.emit("CONCATENATION", tensors, shape, options=options), perm)


def _agreed(column: Sequence[Size]) -> Size:
    """The size of one axis of several tensors that must be equal there."""
    return next((s for kind in (int, str) for s in column if isinstance(s, kind)), None)


@lowers("Split", codes="moving")
def _split(call: Call) -> None:
    axis, perm = call.axis(0), call.held(0).perm
    data, place = call.tensor(0, perm), perm.index(axis)
    outputs = call.node.outputs
    lengths = call.known("split", 1)
    size = data.shape[place]
    if lengths is None and not isinstance(size, int):
        raise call.unsupported("the axis it cuts has a size known only at run time")
    if lengths is None and isinstance(size, int):
        whole = -(-size // len(outputs))
        lengths = (*(whole,) * (len(outputs) - 1), size - whole * (len(outputs) - 1))
    assert lengths is not None, "given or computed"
    parts = [
        Tensor(
            str(output.name), data.dtype, with_size(data.shape, place, length), data.quantization
        )
        for output, length in zip(outputs, lengths, strict=True)
    ]
    graph, integers = call.values.graph, call.values.integers
    if len(set(lengths)) == 1:
        options = schema.SplitOptionsT(numSplits=len(parts))
        graph.emit("SPLIT", [integers(place), data], parts, options)
    else:
        options = schema.SplitVOptionsT(numSplits=len(parts))
        graph.emit("SPLIT_V", [data, integers(lengths), integers(place)], parts, options)
    for index, result in enumerate(parts):
        call.give(result, perm, index)


@lowers("Slice", codes="moving")
def _slice(call: Call) -> None:
    rank = len(call.shape())
    starts, ends = call.integers("starts", 1), call.integers("ends", 2)
    names = call.held(2).entries if ends is None else None
    steps = call.known("steps", 4)
    count = len(starts or ends or ()) or _length(call)
    axes = call.known("axes", 3) or tuple(range(count))
    axes = tuple(axis % rank for axis in axes)
    steps = steps or (1,) * count
    perm = call.held(0).perm
    data = call.tensor(0, perm)
    begin, end = [0] * rank, [0] * rank
    shape, full = list(data.shape), (1 << rank) - 1
    stride, untouched = [1] * rank, full
    for index, axis in enumerate(axes):
        place = perm.index(axis)
        stride[place] = steps[index]
        untouched &= ~(1 << place)
        size = data.shape[place]
        first = None if starts is None else _clipped(starts[index])
        last = None if ends is None else _clipped(ends[index])
        begin[place], end[place] = first or 0, last or 0
        shape[place] = _sliced(size, first, last, steps[index])
        if names is not None and (first, steps[index]) == (0, 1):
            named = names[index]  # the beginning, as long as some other axis; or a number
            known = isinstance(named, int)
            shape[place] = _sliced(size, 0, _clipped(named), 1) if known else named
    masks = [untouched, untouched]
    for bit in range(rank):
        # "To the front" while walking backwards has no number: a mask says it.
        if not untouched & (1 << bit) and stride[bit] < 0 and end[bit] <= -END:
            masks[1] |= 1 << bit
    bounds = [
        _bounds(call, known, index, given, [perm.index(axis) for axis in axes])
        for known, index, given in ((begin, 1, starts), (end, 2, ends))
    ]
    options = schema.StridedSliceOptionsT(beginMask=masks[0], endMask=masks[1])
    inputs = [data, *bounds, call.values.integers(stride)]
    call.give(call.emit("STRIDED_SLICE", inputs, tuple(shape), options=options), perm)


def _length(call: Call) -> int:
    length = call.shape(1)[0]
    if not isinstance(length, int):
        raise call.unsupported("how many axes it cuts is known only at run time")
    return length


def _clipped(bound: int) -> int:
    return max(-END, min(END, bound))


def _sliced(size: Size, first: int | None, last: int | None, step: int) -> Size:
    if first is None or last is None:
        return None
    if (first, last, step) == (0, END, 1):
        return size
    if not isinstance(size, int):
        # Counted from the same side, the length does not depend on the size, if that suffices.
        backwards = first < 0 and last == END and step == 1
        return -first if backwards else None
    return len(range(size)[first:last:step])


def _bounds(call: Call, known: list[int], index: int, given: object, places: list[int]) -> Tensor:
    """Bounds of all axes in the order they are held; those of masked axes do not matter."""
    if given is not None:
        return call.values.integers(known)
    asked = call.tensor(index)
    parts = []
    for place in range(len(known)):
        if place in places:
            parts.append(call.values.part(asked, places.index(place), 1))
        else:
            parts.append(call.values.integers([0]))
    return call.values.joined(parts)


@lowers("Pad", codes="moving")
def _pad(call: Call) -> None:
    rank, perm = len(call.shape()), call.held(0).perm
    amounts = call.known("pads", 1)
    if amounts is None:
        raise call.unsupported("its amounts are known only at run time")
    axes = call.known("axes", 3) or tuple(range(rank))
    sides = [(0, 0)] * rank
    for index, axis in enumerate(axes):
        sides[perm.index(axis % rank)] = (amounts[index], amounts[index + len(axes)])
    mode = call.node.attributes.get_string("mode", "constant")
    number = call.number(2, call.node.attributes.get_float("value", 0.0))
    if mode == "constant" and number is None:
        raise call.unsupported("what it pads with is known only at run time")
    if number:
        call.refuse_codes()
    data = _cropped(call, call.tensor(0, perm), sides)
    sides = [(max(0, before), max(0, behind)) for before, behind in sides]
    if mode == "reflect":
        call.give(_mirrored(call, data, sides), perm)
    elif mode == "constant":
        call.give(pad(call, data, sides, number or 0), perm)
    else:
        call.give(_repeated(call, data, sides, mode), perm)


def _cropped(call: Call, data: Tensor, sides: list[tuple[int, int]]) -> Tensor:
    """``data`` without what negative amounts take away."""
    begin = [max(0, -before) for before, _ in sides]
    if not any(before < 0 or behind < 0 for before, behind in sides):
        return data
    end = [min(0, behind) for _, behind in sides]
    mask = sum(1 << axis for axis, behind in enumerate(end) if behind == 0)
    shape = tuple(
        shifted(size, behind - before) if before or behind else size
        for size, before, behind in zip(data.shape, begin, end, strict=True)
    )
    bounds = [call.values.integers(items) for items in (begin, end, [1] * len(sides))]
    options = schema.StridedSliceOptionsT(endMask=mask)
    return call.emit("STRIDED_SLICE", [data, *bounds], shape, options=options)


def _mirrored(call: Call, data: Tensor, sides: list[tuple[int, int]]) -> Tensor:
    shape = tuple(
        shifted(size, sum(side)) if any(side) else size
        for size, side in zip(data.shape, sides, strict=True)
    )
    options = schema.MirrorPadOptionsT(mode=schema.MirrorPadMode.REFLECT)
    return call.emit("MIRROR_PAD", [data, call.values.integers(sides)], shape, options=options)


def _repeated(call: Call, data: Tensor, sides: list[tuple[int, int]], mode: str) -> Tensor:
    """Padding with elements of the value itself, axis by axis."""
    if mode not in ("edge", "wrap"):
        raise call.unsupported(f"its mode {mode!r} is not known")
    for axis, side in enumerate(sides):
        size = data.shape[axis]
        if not any(side):
            continue
        if not isinstance(size, int):
            raise call.unsupported("it repeats an axis of a size known only at run time")
        indices = np.pad(np.arange(size, dtype=np.int32), side, mode=mode)  # type: ignore[call-overload]
        data = gathered(call, data, indices, axis)
    return data


@lowers("CumSum")
def _cumsum(call: Call) -> None:
    axis = call.number(1)
    if axis is None:
        raise call.unsupported("its axis is known only at run time")
    attributes = call.node.attributes
    options = schema.CumsumOptionsT(
        exclusive=bool(attributes.get_int("exclusive", 0)),
        reverse=bool(attributes.get_int("reverse", 0)),
    )
    place = call.values.integers(int(axis) % len(call.shape()))
    call.give(call.emit("CUMSUM", [call.tensor(0), place], options=options))


@lowers("Trilu")
def _trilu(call: Call) -> None:
    """Keeps what lies on one side of a diagonal: where column minus row says so."""
    data, values = call.tensor(0), call.values
    upper = call.node.attributes.get_int("upper", 1)
    offset = values.cast(call.tensor(1), INT32) if call.has(1) else values.integers(0)
    rows = values.reshape(_counted(call, data.shape[-2]), (data.shape[-2], 1))
    distance = Math(call).sub(_counted(call, data.shape[-1]), rows)
    op = "GREATER_EQUAL" if upper else "LESS_EQUAL"
    keep = call.emit(op, [distance, values.reshape(offset, ())], distance.shape, BOOL)
    inputs = [keep, data, values.graph.constant(np.zeros((), data.dtype))]
    call.give(call.emit("SELECT_V2", inputs, data.shape, data.dtype))


def _counted(call: Call, size: Size) -> Tensor:
    """The numbers from 0 up to a size."""
    values = call.values
    if isinstance(size, int):
        return values.integers(np.arange(size))
    limit = values.reshape(values.sizes((size,)), ())
    inputs = [values.integers(0), limit, values.integers(1)]
    return values.add("RANGE", inputs, (size,), INT32, schema.RangeOptionsT())
