"""What takes axes away, or works along one: means, sums, softmax, the largest."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converters.litert_import.call import IMAGE_RANK, Call, operator
from converters.litert_import.values import FIRST

REDUCTIONS = {
    "MEAN": "ReduceMean", "SUM": "ReduceSum", "REDUCE_MAX": "ReduceMax",
    "REDUCE_MIN": "ReduceMin", "REDUCE_PROD": "ReduceProd",
}  # fmt: skip
AXES_OPERAND = 18  # the opset in which axes became an operand, of all but the sum


@operator(*REDUCTIONS)
def reduction(call: Call) -> None:
    """Over some axes."""
    rank = len(call.shape(0))
    keeps = bool(call.option("keepDims", False))
    axes = sorted({axis % rank for axis in call.numbers(1)}) if rank else []
    first = call.is_first(0) and (keeps or _stays_in_order(axes))
    at = [call.axis(axis, rank, first=first) for axis in axes]
    value = reduce(call, REDUCTIONS[call.node.op], call.get(0, first=first), at, keeps)
    call.set(value, first=first and keeps)


def reduce(call: Call, op: str, value: ir.Value, axes: list[int], keeps: bool) -> ir.Value:
    """A reduction, as its opset wants the axes."""
    if not axes:
        return call.emit("Identity", [value])
    if op == "ReduceSum" or call.values.opset >= AXES_OPERAND:
        return call.emit(op, [value, call.values.array(axes, "int64")], keepdims=int(keeps))
    return call.emit(op, [value], axes=axes, keepdims=int(keeps))


def _stays_in_order(axes: list[int]) -> bool:
    """Whether the axes that are left follow each other in both layouts alike."""
    left = [axis for axis in FIRST if axis not in axes]
    return left == sorted(left) and IMAGE_RANK - len(axes) == len(left)


@operator("REDUCE_ANY", "REDUCE_ALL")
def logical_reduction(call: Call) -> None:
    """Whether one, or each, is true."""
    rank = len(call.shape(0))
    axes = sorted({axis % rank for axis in call.numbers(1)})
    number = call.emit("Cast", [call.get(0)], to=ir.DataType.INT32)
    op = "ReduceMax" if call.node.op == "REDUCE_ANY" else "ReduceMin"
    value = reduce(call, op, number, axes, bool(call.option("keepDims", False)))
    call.set(call.emit("Cast", [value], to=ir.DataType.BOOL))


@operator("SOFTMAX", "LOG_SOFTMAX")
def softmax(call: Call) -> None:
    """Along the last axis."""
    value, beta = call.get(0), float(call.option("beta", 1.0))
    if beta != 1:
        value = call.emit("Mul", [value, call.scalar(beta)])
    op = "Softmax" if call.node.op == "SOFTMAX" else "LogSoftmax"
    call.set(call.emit(op, [value], axis=-1))


@operator("L2_NORMALIZATION")
def l2_normalization(call: Call) -> None:
    """Over the length of the last axis."""
    value = call.get(0)
    squares = reduce(call, "ReduceSum", call.emit("Mul", [value, value]), [-1], True)
    length = call.emit("Sqrt", [call.emit("Max", [squares, call.scalar(1e-6)])])
    call.set(call.emit("Div", [value, length]))


@operator("ARG_MAX", "ARG_MIN")
def extreme(call: Call) -> None:
    """Where the largest or smallest is."""
    op = {"ARG_MAX": "ArgMax", "ARG_MIN": "ArgMin"}[call.node.op]
    value = call.emit(op, [call.get(0)], axis=call.numbers(1)[0], keepdims=0)
    call.set(call.emit("Cast", [value], to=call.out_dtype))


@operator("TOPK_V2")
def top_k(call: Call) -> None:
    """The largest of the last axis, and where they are."""
    count = call.int64(1)
    shape = call.values.array([1], "int64")
    values, places = call.values.emit_all(
        "TopK", [call.get(0), call.emit("Reshape", [count, shape])], 2
    )
    call.set(values)
    tensor = call.values.tensor(call.node.outputs[1])
    dtype = ir.DataType.from_numpy(np.dtype(tensor.dtype))
    call.set(call.emit("Cast", [places], to=dtype), 1)


@operator("CUMSUM")
def cumulative_sum(call: Call) -> None:
    """Sums of all up to each."""
    flags = {name: int(call.option(name, False)) for name in ("exclusive", "reverse")}
    axis = call.values.array(call.numbers(1)[0], "int64")
    call.set(call.emit("CumSum", [call.get(0), axis], **flags))
