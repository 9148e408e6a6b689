"""Operators that pick elements by their place, or put them there."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.litert.arithmetic import Math
from converters.litert.call import Call, lowers
from converters.litert.tensors import BOOL, INT32, Array, Tensor, unknown, with_size
from converters.litert.weights import stored


def gathered(call: Call, data: Tensor, indices: Array, axis: int) -> Tensor:
    """Elements of a tensor along an axis, by constant indices."""
    inputs = [data, call.values.integers(indices)]
    shape = (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])
    return call.emit("GATHER", inputs, shape, options=schema.GatherOptionsT(axis=axis))


@lowers("Gather", codes="moving")
def _gather(call: Call) -> None:
    axis = call.axis(0)
    array = call.constant(0) if not call.with_codes else None
    data = call.tensor(0) if array is None else stored(call, array, "table")
    size = data.shape[axis]
    number = call.number(1)
    known = call.constant(1)
    if known is not None and known.ndim == 0 and number is not None and not isinstance(size, int):
        call.give(_at(call, data, axis, int(number)))
        return
    if known is not None and (known < 0).any():
        if not isinstance(size, int):
            raise call.unsupported("it counts from the end of an axis known only at run time")
        indices = call.values.integers(np.where(known < 0, known + size, known))
    else:
        indices = call.tensor(1)
    shape = (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])
    options = schema.GatherOptionsT(axis=axis)
    call.give(call.emit("GATHER", [data, indices], shape, options=options))


def _at(call: Call, data: Tensor, axis: int, index: int) -> Tensor:
    """One place of an axis, which is dropped."""
    bounds = []
    for edge in (index, index + 1):
        item = [0] * data.rank
        item[axis] = edge
        bounds.append(call.values.integers(item))
    others = ((1 << data.rank) - 1) & ~(1 << axis)
    end = others | (1 << axis if index == -1 else 0)
    options = schema.StridedSliceOptionsT(beginMask=others, endMask=end)
    inputs = [data, *bounds, call.values.integers([1] * data.rank)]
    shape = with_size(data.shape, axis, 1)
    return call.squeeze(call.emit("STRIDED_SLICE", inputs, shape, options=options), (axis,))


@lowers("GatherND")
def _gather_nd(call: Call) -> None:
    if call.node.attributes.get_int("batch_dims", 0):
        raise call.unsupported("it gathers within batches")
    data, indices = call.tensor(0), call.tensor(1)
    depth = indices.shape[-1]
    if not isinstance(depth, int):
        raise call.unsupported("how deep it indexes is known only at run time")
    shape = (*indices.shape[:-1], *data.shape[depth:])
    call.give(call.emit("GATHER_ND", [data, indices], shape, options=schema.GatherNdOptionsT()))


@lowers("OneHot")
def _one_hot(call: Call) -> None:
    rank = len(call.shape()) + 1
    axis = call.axis(-1, rank)
    on_off = call.constant(2)
    if on_off is None:
        raise call.unsupported("its values are known only at run time")
    depth = call.number(1)
    shape = list(call.shape())
    shape.insert(axis, None if depth is None else int(depth))
    graph = call.values.graph
    on, off = (graph.constant(np.array(on_off[i])) for i in (1, 0))
    count = call.values.reshape(call.values.cast(call.tensor(1), INT32), ())
    indices = call.values.cast(call.tensor(0), INT32)
    m = Math(call)
    negative = call.emit("LESS", [indices, call.values.integers(0)], dtype=BOOL)
    inputs = [negative, m.add(indices, count), indices]
    indices = call.emit("SELECT_V2", inputs, indices.shape, INT32)
    options = schema.OneHotOptionsT(axis=axis if axis < rank - 1 else -1)
    call.give(call.emit("ONE_HOT", [indices, count, on, off], tuple(shape), on.dtype, options))


@lowers("NonZero")
def _non_zero(call: Call) -> None:
    data = call.tensor(0)
    found = call.emit("WHERE", [data], (None, data.rank), np.dtype(np.int64))
    call.give(call.values.cast(found, INT32), (1, 0))


@lowers("GatherElements")
def _gather_elements(call: Call) -> None:
    """Along one axis by own indices: gathered from the flattened value."""
    axis = call.axis(0)
    data, indices = call.tensor(0), call.tensor(1)
    # An open first axis that both share is a batch: places count from the start of each item.
    batch = int(axis > 0 and data.shape[0] is not None and data.shape[0] == indices.shape[0])
    if unknown(data.shape[batch:]) or unknown(indices.shape[batch:]):
        raise call.unsupported("its sizes are known only at run time")
    sizes, own = ([s for s in t.shape[batch:] if isinstance(s, int)] for t in (data, indices))
    axis -= batch
    strides = np.cumprod([1, *sizes[:0:-1]])[::-1]
    others = [other for other in range(len(sizes)) if other != axis]
    base = sum((np.indices(own)[other] * strides[other] for other in others), np.zeros(own))
    m = Math(call)
    size = call.values.integers(sizes[axis])
    wrapped = call.emit("FLOOR_MOD", [indices, size])
    scaled = m.mul(wrapped, call.values.integers(strides[axis]))
    place = m.add(scaled, call.values.integers(base))
    flat = call.values.reshape(data, (*data.shape[:batch], int(np.prod(sizes))))
    options = schema.GatherOptionsT(axis=batch, batchDims=batch)
    call.give(call.emit("GATHER", [flat, place], indices.shape, options=options))


@lowers("ScatterND")
def _scatter_nd(call: Call) -> None:
    """What is scattered, where anything is; the value itself elsewhere."""
    if call.node.attributes.get_string("reduction", "none") != "none":
        raise call.unsupported("it combines what it scatters with what is there")
    data, indices, updates = (call.tensor(index) for index in range(3))
    values, options = call.values, schema.ScatterNdOptionsT()
    sizes = values.sizes(data.shape)
    one = values.graph.constant(np.ones((), np.float32))
    ones = values.add("FILL", [values.sizes(updates.shape), one], updates.shape, one.dtype)
    hits = call.emit("SCATTER_ND", [indices, ones, sizes], data.shape, one.dtype, options)
    touched = call.emit("GREATER", [hits, call.number_tensor(0)], data.shape, BOOL)
    scattered = call.emit("SCATTER_ND", [indices, updates, sizes], data.shape, data.dtype, options)
    call.give(call.emit("SELECT_V2", [touched, scattered, data], data.shape, data.dtype))
