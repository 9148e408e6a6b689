"""What moves values about: joining, cutting, padding, gathering."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from converters.litert_import.call import Call, operator

ALL = np.iinfo(np.int64).max
COUNTED_SPLIT = 18


@operator("CONCATENATION")
def concatenate(call: Call) -> None:
    """Joined along an axis."""
    positions = range(len(call.node.inputs))
    first = call.is_first(*positions)
    axis = call.axis(call.option("axis", 0), len(call.out_shape), first=first)
    parts = [call.operand(position, first=first) for position in positions]
    call.set(call.emit("Concat", parts, axis=axis), first=first)


@operator("PACK")
def pack(call: Call) -> None:
    """Joined along a new axis."""
    axis = call.option("axis", 0) % len(call.out_shape)
    axes = call.values.array([axis], "int64")
    parts = [call.emit("Unsqueeze", [call.get(i), axes]) for i in range(len(call.node.inputs))]
    call.set(call.emit("Concat", parts, axis=axis))


@operator("UNPACK")
def unpack(call: Call) -> None:
    """Cut along an axis, which is gone then."""
    axis = call.option("axis", 0) % len(call.shape(0))
    count = len(call.node.outputs)
    parts = _split(call, [call.get(0)], count, axis)
    axes = call.values.array([axis], "int64")
    for number, part in enumerate(parts):
        call.set(call.emit("Squeeze", [part, axes]), number)


@operator("SPLIT", "SPLIT_V")
def split(call: Call) -> None:
    """Cut along an axis, in equal parts or of given sizes."""
    data, axis = (1, 0) if call.node.op == "SPLIT" else (0, 2)
    first = call.is_first(data)
    at = call.axis(call.numbers(axis)[0], len(call.shape(data)), first=first)
    inputs = [call.get(data, first=first)]
    if call.node.op == "SPLIT_V":
        inputs.append(_sizes(call, call.shape(data)[call.numbers(axis)[0]]))
    for number, part in enumerate(_split(call, inputs, len(call.node.outputs), at)):
        call.set(part, number, first=first)


def _split(call: Call, inputs: list[ir.Value], count: int, axis: int) -> Sequence[ir.Value]:
    # From this opset on, the number of equal parts is said.
    equal = len(inputs) == 1 and call.values.opset >= COUNTED_SPLIT
    extra = {"num_outputs": count} if equal else {}
    return call.values.emit_all("Split", inputs, count, axis=axis, **extra)


def _sizes(call: Call, whole: int) -> ir.Value:
    sizes = call.numbers(1)
    if -1 in sizes:  # what is left
        sizes[sizes.index(-1)] = whole - sum(sizes) - 1
    return call.values.array(sizes, "int64")


@operator("SLICE")
def slice_(call: Call) -> None:
    """From a begin on as many as a size says; -1 for all."""
    sizes = call.known(2)
    if call.known(1) is None or sizes is None:
        begin, size = call.int64(1), call.int64(2)
        if sizes is not None and -1 in sizes:
            raise call.refuse("its begin is not constant, and it goes to the end")
        call.set(call.emit("Slice", [call.get(0), begin, call.emit("Add", [begin, size])]))
        return
    first = call.is_first(0)
    begins = call.numbers(1)
    ends = [ALL if n < 0 else b + n for b, n in zip(begins, call.numbers(2), strict=True)]
    rows = [call.values.array(call.axes_of(r, first=first), "int64") for r in (begins, ends)]
    call.set(call.emit("Slice", [call.get(0, first=first), *rows]), first=first)


@operator("STRIDED_SLICE")
def strided_slice(call: Call) -> None:
    """Python's slicing: masks say which ends are open, which axes go, which are new."""
    if call.option("ellipsisMask", 0) or call.option("offset", False):
        raise call.refuse("it has an ellipsis or an offset")
    steps = call.numbers(3)
    masks = [int(call.option(f"{name}Mask", 0)) for name in ("newAxis", "shrinkAxis")]
    is_new, is_gone = ([bool(mask >> i & 1) for i in range(len(steps))] for mask in masks)
    value = call.get(0)
    fresh = [i for i, new in enumerate(is_new) if new]
    if fresh:
        value = call.emit("Unsqueeze", [value, call.values.array(fresh, "int64")])
    begins, ends = _ends(call, steps, is_gone)
    cut = [i for i, new in enumerate(is_new) if not new]
    at = call.values.array(cut, "int64")
    rows = [_picked(call, row, cut) for row in (begins, ends)]
    rows += [at, call.values.array([1 if is_gone[i] else steps[i] for i in cut], "int64")]
    value = call.emit("Slice", [value, *rows])
    gone = [i for i in cut if is_gone[i]]
    if gone:
        value = call.emit("Squeeze", [value, call.values.array(gone, "int64")])
    call.set(value)


End = int | ir.Value  # of one axis: a number, or an array of one


def _ends(call: Call, steps: list[int], is_gone: list[bool]) -> tuple[list[End], list[End]]:
    """Begins and ends of all axes, the open ones spelled out."""
    open_begins, open_ends = (int(call.option(f"{name}Mask", 0)) for name in ("begin", "end"))
    begins, ends = _by_axis(call, 1, len(steps)), _by_axis(call, 2, len(steps))
    for i, step in enumerate(steps):
        begin = begins[i]
        if open_begins >> i & 1:
            begins[i] = begin = 0 if step > 0 else ALL
        if is_gone[i] and isinstance(begin, int):
            ends[i] = begin + 1 if begin != -1 else ALL  # after the last comes the end
        elif is_gone[i] and isinstance(begin, ir.Value):
            ends[i] = call.emit("Add", [begin, call.values.array([1], "int64")])
        elif open_ends >> i & 1:
            ends[i] = ALL if step > 0 else -ALL
    return begins, ends


def _by_axis(call: Call, position: int, count: int) -> list[End]:
    if call.known(position) is not None:
        return list(call.numbers(position))
    whole = call.int64(position)
    places = [call.values.array([i], "int64") for i in range(count)]
    return [call.emit("Gather", [whole, place]) for place in places]


def _picked(call: Call, row: list[End], places: list[int]) -> ir.Value:
    picked = [row[i] for i in places]
    if all(isinstance(end, int) for end in picked):
        return call.values.array(picked, "int64")
    parts = [
        end if isinstance(end, ir.Value) else call.values.array([end], "int64") for end in picked
    ]
    return call.emit("Concat", parts, axis=0)


@operator("PAD", "PADV2")
def pad(call: Call) -> None:
    """Zeros, or a given value, around."""
    first = call.is_first(0)
    rows = call.axes_of(call.constant(1).tolist(), first=first)
    pads = call.values.array([row[0] for row in rows] + [row[1] for row in rows], "int64")
    inputs = [call.get(0, first=first), pads]
    if call.node.op == "PADV2":
        inputs.append(call.get(2))
    call.set(call.emit("Pad", inputs), first=first)


@operator("MIRROR_PAD")
def mirror_pad(call: Call) -> None:
    """What lies inside the edge, mirrored, around."""
    if call.option("mode", 0):
        raise call.refuse("it repeats the edge itself (symmetric)")
    first = call.is_first(0)
    rows = call.axes_of(call.constant(1).tolist(), first=first)
    pads = call.values.array([row[0] for row in rows] + [row[1] for row in rows], "int64")
    call.set(call.emit("Pad", [call.get(0, first=first), pads], mode="reflect"), first=first)


@operator("GATHER")
def gather(call: Call) -> None:
    """Rows of a table by their number."""
    if call.option("batchDims", 0):
        raise call.refuse("it gathers per row of a batch")
    axis = call.option("axis", 0) % max(len(call.shape(0)), 1)
    _gather(call, table=0, rows=1, axis=axis)


@operator("EMBEDDING_LOOKUP")
def embedding_lookup(call: Call) -> None:
    """Rows of a table by their number, which comes first."""
    _gather(call, table=1, rows=0, axis=0)


def _gather(call: Call, *, table: int, rows: int, axis: int) -> None:
    index, output = call.index(table), call.node.outputs[0]
    same = call.values.is_quantized(index) and call.values.is_quantized(output)
    if same and call.values.is_constant(index):
        # The few rows, and not the whole table, are made real numbers.
        inputs = [call.values.get(index, real=False), call.get(rows)]
        call.values.set_raw(output, call.emit("Gather", inputs, axis=axis))
        return
    call.set(call.emit("Gather", [call.get(table), call.get(rows)], axis=axis))


@operator("GATHER_ND")
def gather_nd(call: Call) -> None:
    """Parts by their places."""
    call.set(call.emit("GatherND", [call.get(0), call.int64(1)]))


@operator("SCATTER_ND")
def scatter_nd(call: Call) -> None:
    """Values at their places among zeros; those at one place are added."""
    dtype = call.out_dtype.numpy() if not call.values.is_quantized(call.node.outputs[0]) else "f4"
    zeros = call.emit("Expand", [call.values.array(np.zeros((), dtype)), call.int64(2)])
    inputs = [zeros, call.int64(0), call.get(1)]
    call.set(call.emit("ScatterND", inputs, reduction="add"))


@operator("TRANSPOSE")
def transpose(call: Call) -> None:
    """Axes in another order."""
    call.set(call.emit("Transpose", [call.get(0)], perm=call.numbers(1)))


@operator("TILE")
def tile(call: Call) -> None:
    """Repeated along the axes."""
    call.set(call.emit("Tile", [call.get(0), call.int64(1)]))


@operator("REVERSE_V2")
def reverse(call: Call) -> None:
    """Backwards along some axes."""
    axes = call.numbers(1)
    rows = [[-1] * len(axes), [-ALL] * len(axes), axes, [-1] * len(axes)]
    inputs = [call.values.array(row, "int64") for row in rows]
    call.set(call.emit("Slice", [call.get(0), *inputs]))


@operator("SPACE_TO_DEPTH", "DEPTH_TO_SPACE")
def space_and_depth(call: Call) -> None:
    """Blocks of a picture into channels, and back."""
    op = {"SPACE_TO_DEPTH": "SpaceToDepth", "DEPTH_TO_SPACE": "DepthToSpace"}[call.node.op]
    size = int(call.option("blockSize"))
    call.set(call.emit(op, [call.get(0, first=True)], blocksize=size), first=True)
