"""Reductions and the normalizations made of them, over axes wherever these are held."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.litert.arithmetic import Math
from converters.litert.call import Call, lowers
from converters.litert.tensors import BOOL, INT32, Perm, Tensor, channels_last, identity, unknown
from converters.passes.graph_tools import CONTRIB

KERNELS = {
    "ReduceMean": "MEAN",
    "ReduceSum": "SUM",
    "ReduceMax": "REDUCE_MAX",
    "ReduceMin": "REDUCE_MIN",
    "ReduceProd": "REDUCE_PROD",
}
SUMS = ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")


def reduced(call: Call, op: str, data: Tensor, places: Sequence[int]) -> Tensor:
    """A reduction of a tensor over some of its axes, which stay with size 1."""
    shape = tuple(1 if axis in places else size for axis, size in enumerate(data.shape))
    options = schema.ReducerOptionsT(keepDims=True)
    axes = call.values.integers(sorted(places))
    return call.emit(op, [data, axes], shape, options=options)


@lowers(*KERNELS, *SUMS)
def _reduce(call: Call) -> None:
    rank = len(call.shape())
    axes = call.known("axes", 1)
    keeps_all = call.node.attributes.get_int("noop_with_empty_axes", 0)
    if not axes and keeps_all:
        call.give_held(call.held(0))
        return
    wanted = {axis % rank for axis in axes} if axes else set(range(rank))
    perm = call.held(0).perm
    places = [perm.index(axis) for axis in sorted(wanted)]
    data = call.tensor(0, perm)
    boolean = data.dtype == BOOL
    result = _apply(call, call.values.cast(data, INT32) if boolean else data, places)
    result = call.values.cast(result, data.dtype)
    if call.node.attributes.get_int("keepdims", 1):
        call.give(result, perm)
        return
    left = [axis for axis in range(rank) if axis not in wanted]
    order = tuple(left.index(axis) for axis in perm if axis not in wanted)
    call.give(call.squeeze(result, places), order)


def _apply(call: Call, data: Tensor, places: Sequence[int]) -> Tensor:
    kind, m = call.node.op_type, Math(call)
    if kind in KERNELS:
        return reduced(call, KERNELS[kind], data, places)
    if kind == "ReduceL1":
        return reduced(call, "SUM", m.unary("ABS", data), places)
    if kind == "ReduceLogSum":
        return m.unary("LOG", reduced(call, "SUM", data, places))
    if kind == "ReduceLogSumExp":
        top = reduced(call, "REDUCE_MAX", data, places)
        total = reduced(call, "SUM", m.unary("EXP", m.sub(data, top)), places)
        return m.add(m.unary("LOG", total), top)
    squares = reduced(call, "SUM", m.mul(data, data), places)
    return squares if kind == "ReduceSumSquare" else m.unary("SQRT", squares)


@lowers("ArgMax", "ArgMin")
def _arg(call: Call) -> None:
    axis = call.axis(0)
    if call.node.attributes.get_int("select_last_index", 0):
        raise call.unsupported("it asks for the last of equal elements")
    perm = call.held(0).perm
    data, place = call.tensor(0, perm), perm.index(axis)
    kind = {"ArgMax": schema.ArgMaxOptionsT, "ArgMin": schema.ArgMinOptionsT}[call.node.op_type]
    op = {"ArgMax": "ARG_MAX", "ArgMin": "ARG_MIN"}[call.node.op_type]
    shape = (*data.shape[:place], *data.shape[place + 1 :])
    options = kind(outputType=schema.TensorType.INT32)
    inputs = [data, call.values.integers(place)]
    result = call.emit(op, inputs, shape, INT32, options)
    if call.node.attributes.get_int("keepdims", 1):
        call.give(call.unsqueeze(result, (place,)), perm)
        return
    left = [other for other in range(data.rank) if other != axis]
    call.give(result, tuple(left.index(other) for other in perm if other != axis))


@lowers("TopK")
def _top_k(call: Call) -> None:
    axis = call.axis(-1)
    perm = call.last(axis)
    data = call.tensor(0, perm)
    smallest = not call.node.attributes.get_int("largest", 1)
    if smallest:
        data = call.emit("NEG", [data])
    k = call.number(1)
    count = call.values.reshape(call.tensor(1), ())
    shape = (*data.shape[:-1], None if k is None else int(k))
    values = Tensor(call.values.scope, data.dtype, shape)
    indices = Tensor(f"{call.values.scope}_indices", INT32, shape)
    call.values.graph.emit("TOPK_V2", [data, count], [values, indices], schema.TopKV2OptionsT())
    call.give(call.emit("NEG", [values]) if smallest else values, perm)
    call.give(indices, perm, index=1)


@lowers("LayerNormalization", "RMSNormalization")
@lowers("SimplifiedLayerNormalization")
def _layer_norm(call: Call) -> None:
    rank = len(call.shape())
    fixed = all(call.constant(index) is not None for index in (1, 2) if call.has(index))
    perm = call.held(0).perm if fixed else identity(rank)
    first = call.axis(-1)
    places = [perm.index(axis) for axis in range(first, rank)]
    epsilon = call.node.attributes.get_float("epsilon", 1e-5)
    centred = call.node.op_type == "LayerNormalization"
    result = normalized(call, call.tensor(0, perm), places, epsilon, centred)
    call.give(_scaled(call, result, perm), perm)


@lowers("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=CONTRIB)
def _skip_layer_norm(call: Call) -> None:
    m, rank = Math(call), len(call.shape())
    centred = call.node.op_type == "SkipLayerNormalization"
    total = m.add(call.tensor(0), call.tensor(1))
    bias = 4 if centred else 3
    if call.has(bias):
        total = m.add(total, call.tensor(bias))
    epsilon = call.node.attributes.get_float("epsilon", 1e-12)
    result = m.mul(normalized(call, total, [rank - 1], epsilon, centred), call.tensor(2))
    if centred and call.has(3):
        result = m.add(result, call.tensor(3))
    call.give(result)
    if len(call.node.outputs) > 3:
        call.give(total, index=3)


@lowers("LRN")
def _local_response_norm(call: Call) -> None:
    attributes = call.node.attributes
    size = attributes.get_int("size", 1)
    if size % 2 == 0:
        raise call.unsupported("it looks at an even number of channels")
    options = schema.LocalResponseNormalizationOptionsT(
        radius=size // 2,
        bias=attributes.get_float("bias", 1.0),
        alpha=attributes.get_float("alpha", 1e-4) / size,
        beta=attributes.get_float("beta", 0.75),
    )
    perm = channels_of(call)
    data = call.tensor(0, perm)
    call.give(call.emit("LOCAL_RESPONSE_NORMALIZATION", [data], options=options), perm)


@lowers("InstanceNormalization")
def _instance_norm(call: Call) -> None:
    perm = channels_of(call)
    data = call.tensor(0, perm)
    places = list(range(1, data.rank - 1))
    epsilon = call.node.attributes.get_float("epsilon", 1e-5)
    result = normalized(call, data, places, epsilon, centred=True)
    m = Math(call)
    call.give(m.add(m.mul(result, call.tensor(1)), call.tensor(2)), perm)


@lowers("BatchNormalization")
def _batch_norm(call: Call) -> None:
    arrays = [call.constant(index) for index in range(1, 5)]
    if any(array is None for array in arrays):
        raise call.unsupported("its statistics are computed at run time")
    scale, bias, mean, variance = (np.asarray(a, np.float64) for a in arrays)
    factor = scale / np.sqrt(variance + call.node.attributes.get_float("epsilon", 1e-5))
    perm, m = channels_of(call), Math(call)
    parts = [factor.astype(np.float32), (bias - mean * factor).astype(np.float32)]
    multiplier, offset = (call.values.graph.constant(part) for part in parts)
    call.give(m.add(m.mul(call.tensor(0, perm), multiplier), offset), perm)


@lowers("LpNormalization")
def _lp_norm(call: Call) -> None:
    perm, m = call.held(0).perm, Math(call)
    data = call.tensor(0, perm)
    places = [perm.index(call.axis(-1))]
    if call.node.attributes.get_int("p", 2) == 1:
        size = reduced(call, "SUM", m.unary("ABS", data), places)
    else:
        size = m.unary("SQRT", reduced(call, "SUM", m.mul(data, data), places))
    call.give(m.div(data, size), perm)


@lowers("GroupNormalization")
def _group_norm(call: Call) -> None:
    groups = call.node.attributes.get_int("num_groups", 1)
    perm, m = channels_of(call), Math(call)
    data = call.tensor(0, perm)
    channels, spatial = data.shape[-1], data.shape[1:-1]
    if not isinstance(channels, int) or unknown(spatial):
        raise call.unsupported("its sizes are known only at run time")
    grouped = call.values.reshape(data, (data.shape[0], *spatial, groups, channels // groups))
    places = [*range(1, 1 + len(spatial)), grouped.rank - 1]
    epsilon = call.node.attributes.get_float("epsilon", 1e-5)
    result = normalized(call, grouped, places, epsilon, centred=True)
    result = call.values.reshape(result, data.shape)
    factors = [_per_channel(call, index, channels, groups) for index in (1, 2)]
    call.give(m.add(m.mul(result, factors[0]), factors[1]), perm)


def _per_channel(call: Call, index: int, channels: int, groups: int) -> Tensor:
    array = call.constant(index)
    if array is None:
        raise call.unsupported("its scale or bias is computed at run time")
    if array.size == groups != channels:
        array = np.repeat(array, channels // groups)
    return call.values.graph.constant(array)


def normalized(
    call: Call, data: Tensor, places: Sequence[int], epsilon: float, centred: bool
) -> Tensor:
    """``data`` over some axes, brought to mean 0 (if ``centred``) and mean square 1."""
    m = Math(call)
    if centred:
        data = m.sub(data, reduced(call, "MEAN", data, places))
    power = reduced(call, "MEAN", m.mul(data, data), places)
    return m.mul(data, m.unary("RSQRT", m.add(power, epsilon)))


def channels_of(call: Call) -> Perm:
    """The permutation with axis 1 last."""
    return channels_last(len(call.shape()))


def _scaled(call: Call, result: Tensor, perm: Perm) -> Tensor:
    """The result times the second input plus the third, whose axes are the last ones."""
    m = Math(call)
    for index, apply in ((1, m.mul), (2, m.add)):
        if not call.has(index):
            continue
        array = call.constant(index)
        operand = call.tensor(index)
        if array is not None and perm != identity(len(perm)):
            full = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
            operand = call.values.graph.constant(np.transpose(full, perm))
        result = apply(result, operand)
    return result
