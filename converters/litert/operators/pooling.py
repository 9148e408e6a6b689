"""Pools."""

from __future__ import annotations

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.litert.arithmetic import Math
from converters.litert.call import Call, lowers
from converters.litert.operators.convolution import Window, padded, widened
from converters.litert.tensors import FLOAT, INT32, Array, Tensor, channels_last
from converters.passes.qdq_placement import clamp_bounds


@lowers("MaxPool", codes="moving")
def _max_pool(call: Call) -> None:
    window = _window(call)
    data, window, line = _image(call, window)
    data, padding = padded(call, data, window, fill=0 if _starts_at_zero(call, data) else -math.inf)
    _finish(call, _pooled(call, "MAX_POOL_2D", data, window, padding), line)


def _starts_at_zero(call: Call, data: Tensor) -> bool:
    """Whether nothing in the data is below zero, so that zeros never win."""
    if data.quantization is not None:
        return data.quantization.zero_point == np.iinfo(np.int8).min
    value = call.node.inputs[0]
    node = value.producer() if value is not None else None
    bounds = clamp_bounds(node) if node is not None and not node.domain else None
    return bounds is not None and bounds[0] >= 0


@lowers("AveragePool", codes="moving")
def _average_pool(call: Call) -> None:
    window = _window(call)
    begin, end = _counted_padding(call, window)
    own_scheme = not (any(begin) or any(end)) and window.is_same
    correction = None if own_scheme else _correction(call, window, begin, end)
    if correction is not None:
        call.refuse_codes()
    data, window, line = _image(call, window)
    data, padding = padded(call, data, window, own_scheme=own_scheme)
    result = _pooled(call, "AVERAGE_POOL_2D", data, window, padding)
    if correction is not None:
        result = Math(call).mul(result, call.values.graph.constant(correction))
    _finish(call, result, line)


@lowers("GlobalAveragePool", codes="rescaling")
@lowers("GlobalMaxPool")
def _global_pool(call: Call) -> None:
    perm = channels_last(len(call.shape()))
    data = call.tensor(0, perm)
    axes = tuple(range(1, data.rank - 1))
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(data.shape))
    op = "MEAN" if call.node.op_type == "GlobalAveragePool" else "REDUCE_MAX"
    inputs = [data, call.values.integers(axes)]
    options = schema.ReducerOptionsT(keepDims=True)
    call.give(call.emit(op, inputs, shape, options=options, quantization=call.target), perm)


def _window(call: Call) -> Window:
    attributes = call.node.attributes
    window = Window.of(call, attributes.get_ints("kernel_shape", ()))
    if len(window.kernel) > 2 or any(step != 1 for step in window.dilations):
        raise call.unsupported("its window has holes or more than two axes")
    return window.grown_to(window.output(ceil=bool(attributes.get_int("ceil_mode", 0))))


def _image(call: Call, window: Window) -> tuple[Tensor, Window, bool]:
    """The data with two spatial axes, and whether it had one."""
    data = call.tensor(0, channels_last(len(window.kernel) + 2))
    data = call.values.cast(data, FLOAT) if data.dtype == INT32 else data
    if len(window.kernel) == 2:
        return data, window, False
    return (*widened(call, data, window), True)


def _pooled(call: Call, op: str, data: Tensor, window: Window, padding: int) -> Tensor:
    options = schema.Pool2DOptionsT(
        padding=padding,
        strideH=window.strides[0],
        strideW=window.strides[1],
        filterHeight=window.kernel[0],
        filterWidth=window.kernel[1],
    )
    shape = (data.shape[0], *window.output(), data.shape[-1])
    return call.emit(op, [data], shape, options=options)


def _finish(call: Call, result: Tensor, line: bool) -> None:
    if line:
        result = call.squeeze(result, (1,))
    call.give(result, channels_last(result.rank))


def _counted_padding(call: Call, window: Window) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The padding that takes part in the mean: what the node asks for, not what rounding adds."""
    if not call.node.attributes.get_int("count_include_pad", 0):
        return (0,) * len(window.kernel), (0,) * len(window.kernel)
    asked = Window.of(call, window.kernel)
    return asked.begin, asked.end


def _correction(
    call: Call, window: Window, begin: tuple[int, ...], end: tuple[int, ...]
) -> Array | None:
    """What turns means over whole windows into means over what counts; ``None`` for ones."""
    if (begin, end) == (window.begin, window.end):
        return None
    taps = window.taps_inside(begin, end)
    if taps is None:
        raise call.unsupported("its padding takes no part in the mean, at sizes not known yet")
    counts = taps[0] if len(taps) == 1 else np.multiply.outer(*taps)
    factor = math.prod(window.kernel) / counts
    return np.asarray(factor[..., None], np.float32)
