"""Operators that say the same elements in another shape, or speak about shapes."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from converters.litert import sizes
from converters.litert.call import Call, lowers, type_of
from converters.litert.tensors import (
    INT32,
    Shape,
    Size,
    identity,
    product_of,
    scaled,
    size_of,
)
from converters.litert.values import Held, computed
from converters.passes.graph_tools import static_shape

# What keeps the shape of its one operand, or of the one that is no scalar.
ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Sigmoid", "Tanh", "Relu", "Exp", "Log", "Neg", "Cast"}


@lowers("Transpose", codes="moving")
def _transpose(call: Call) -> None:
    """Costs nothing: the same tensors, read in another order."""
    held = call.held(0)
    rank = len(held.shape)
    order = call.node.attributes.get_ints("perm", tuple(reversed(range(rank))))
    if held.array is not None:
        array = np.transpose(held.array, order)
        call.give_held(Held(array.shape, array=array, quantization=held.quantization))
        return
    if not held.forms:
        call.values.form(held, held.perm)
    forms = {
        tuple(order.index(axis) for axis in perm): tensor for perm, tensor in held.forms.items()
    }
    shape = tuple(held.shape[axis] for axis in order)
    call.give_held(Held(shape, forms, quantization=held.quantization))


@lowers("Reshape", codes="moving")
def _reshape(call: Call) -> None:
    data = call.shape()
    rank = None if call.output.shape is None else len(call.output.shape)
    target = sizes.asked(call, 1, rank)
    if not call.node.attributes.get_int("allowzero", 0):
        target = tuple(data[axis] if size == 0 else size for axis, size in enumerate(target))
    shape = _resolved(data, tuple(None if size == -1 else size for size in target))
    # What inference knows beyond this needs no looking up.
    shape = call.output_shape(shape) if None in shape else shape
    at_run_time = call.tensor(1) if shape.count(None) > 1 else None
    call.give(call.values.reshape(call.tensor(0), shape, at_run_time))


def _resolved(data: Shape, shape: Shape) -> Shape:
    """The shape with its one unnamed axis, if that follows from the rest."""
    if shape.count(None) != 1:
        return shape
    names = [size for size in data if isinstance(size, str)]
    left = list(names)
    for size in shape:
        if isinstance(size, str):
            if size not in left:
                return shape
            left.remove(size)
    have, used = (math.prod(s for s in item if isinstance(s, int)) for item in (data, shape))
    if not used or len(left) > 1 or (left and have != used):
        return shape
    found: Size = left[0] if left else have // used
    return tuple(found if size is None else size for size in shape)


@lowers("Flatten", codes="moving")
def _flatten(call: Call) -> None:
    shape = call.shape()
    axis = call.node.attributes.get_int("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    halves = (product_of(shape[:axis]), product_of(shape[axis:]))
    if halves.count(None) == 2:
        raise call.unsupported("both of its axes are known only at run time")
    call.give(call.values.reshape(call.tensor(0), halves))


@lowers("Squeeze", codes="moving")
def _squeeze(call: Call) -> None:
    shape, perm = call.shape(), call.held(0).perm
    axes = call.known("axes", 1)
    if axes is None:
        axes = _axes_of_one(call, shape)
    dropped = {axis % len(shape) for axis in axes}
    left = [axis for axis in range(len(shape)) if axis not in dropped]
    tensor = call.squeeze(call.tensor(0, perm), [perm.index(axis) for axis in dropped])
    call.give(tensor, tuple(left.index(axis) for axis in perm if axis not in dropped))


def _declared_rank(value: ir.Value) -> int | None:
    """The rank of a value, or of the output that it becomes by numbers alone."""
    while value.shape is None and len(value.uses()) == 1:
        node = next(iter(value.uses())).node
        others = [other for other in node.inputs if other is not value]
        scalars = all(other is not None and static_shape(other) == () for other in others)
        if node.op_type not in ELEMENTWISE or not scalars:
            return None
        value = node.outputs[0]
    return None if value.shape is None else len(value.shape)


def _axes_of_one(call: Call, shape: Shape) -> tuple[int, ...]:
    """The axes that are 1; the rank of the result says whether free ones are among them."""
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    rank = _declared_rank(call.node.outputs[0])
    if rank is None or rank == len(shape) - len(axes):
        return axes
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1 or not isinstance(size, int))
    if rank == len(shape) - len(axes):
        return axes
    raise call.unsupported("which axes it drops is known only at run time")


@lowers("Unsqueeze", codes="moving")
def _unsqueeze(call: Call) -> None:
    axes = call.known("axes", 1)
    assert axes is not None, "the schema asks for axes"
    held = call.held(0)
    rank = len(held.shape) + len(axes)
    added = sorted(axis % rank for axis in axes)
    if held.array is not None:
        array = np.expand_dims(held.array, tuple(added))
        call.give_held(Held(array.shape, array=array))
        return
    kept = [axis for axis in range(rank) if axis not in added]
    # Axes of the result in the order they are held, new ones first.
    order = [kept[axis] for axis in held.perm]
    perm = tuple(order)
    for axis in added:
        place = axis if held.perm == identity(len(held.perm)) else 0
        perm = (*perm[:place], axis, *perm[place:])
    places = [place for place, axis in enumerate(perm) if axis in added]
    call.give(call.unsqueeze(call.tensor(0, held.perm), places), perm)


@lowers("Size")
def _size(call: Call) -> None:
    total = size_of(call.shape())
    if total is not None:
        call.give_held(Held((), array=np.array(total, np.int32)))
        return
    held = call.held(0)
    found = call.values.shape_of(call.values.form(held, held.perm))
    inputs = [found, call.values.integers([0])]
    call.give(call.emit("REDUCE_PROD", inputs, (), options=schema.ReducerOptionsT()))


@lowers("ConstantOfShape")
def _constant_of_shape(call: Call) -> None:
    attribute = call.node.attributes.get_tensor("value", None)
    value = np.zeros(1, np.float32) if attribute is None else attribute.numpy()
    dtype = computed(value.dtype)
    rank = None if call.output.shape is None else len(call.output.shape)
    target = sizes.asked(call, 0, rank)
    number = call.values.graph.constant(value.reshape(()).astype(dtype))
    at_run_time = call.tensor(0) if None in target else call.values.sizes(target)
    shape = call.output_shape(target)
    call.give(call.emit("FILL", [at_run_time, number], shape, dtype, schema.FillOptionsT()))


@lowers("Range")
def _range(call: Call) -> None:
    inputs = [call.values.reshape(call.tensor(index), ()) for index in range(3)]
    limit = call.held(1).entries
    counts = limit is not None and (call.number(0), call.number(2)) == (0, 1)
    shape = call.output_shape((limit.item() if limit is not None and counts else None,))
    call.give(call.emit("RANGE", inputs, shape, options=schema.RangeOptionsT()))


@lowers("Expand")
def _expand(call: Call) -> None:
    data = call.shape()
    rank = None if call.output.shape is None else len(call.output.shape)
    target = sizes.asked(call, 1, rank)
    shape = call.output_shape(sizes.expanded(data, target))
    tensor = call.tensor(0)
    if None not in shape:
        wanted = call.values.sizes(shape)
    else:
        given = call.tensor(1) if None in target else call.values.sizes(target)
        inputs = [call.values.shape_of(tensor), given]
        wanted = call.emit("BROADCAST_ARGS", inputs, (len(shape),), INT32)
    options = schema.BroadcastToOptionsT()
    call.give(call.emit("BROADCAST_TO", [tensor, wanted], shape, options=options))


@lowers("Tile")
def _tile(call: Call) -> None:
    data = call.shape()
    counts = call.integers("repeats", 1)
    shape: Shape = (None,) * len(data)
    if counts is not None:
        columns = zip(data, counts, strict=True)
        shape = tuple(scaled(size, count) for size, count in columns)
    inputs = [call.tensor(0), call.tensor(1)]
    call.give(call.emit("TILE", inputs, call.output_shape(shape), options=schema.TileOptionsT()))


@lowers("Cast", "CastLike")
def _cast(call: Call) -> None:
    held, dtype = call.held(0), type_of(call.output)
    asked = call.node.attributes.get_int("to", 0)
    if asked:
        dtype = computed(np.dtype(ir.DataType(asked).numpy()))
    if dtype is None:
        raise call.unsupported("the type of its result is not known")
    if held.array is not None:
        call.give_held(Held(held.shape, array=held.array.astype(dtype)))
        return
    tensor = call.tensor(0, held.perm)
    if tensor.dtype == dtype:
        call.give_held(held)
    else:
        call.give(call.values.cast(tensor, dtype), held.perm)
