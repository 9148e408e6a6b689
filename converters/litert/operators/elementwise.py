"""Operators that compute each element from the elements in the same place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.litert.call import Call, lowers
from converters.litert.tensors import (
    BOOL,
    FLOAT,
    INT32,
    Perm,
    Quantization,
    Shape,
    Tensor,
    broadcast,
    identity,
    logical,
    permuted,
)

UNARY = {
    "Abs": "ABS",
    "Ceil": "CEIL",
    "Cos": "COS",
    "Exp": "EXP",
    "Floor": "FLOOR",
    "Log": "LOG",
    "Neg": "NEG",
    "Not": "LOGICAL_NOT",
    "Round": "ROUND",
    "Sign": "SIGN",
    "Sin": "SIN",
    "Sqrt": "SQRT",
    "HardSwish": "HARD_SWISH",
}
# Kernels of these give codes at one scale only.
FIXED = {"Sigmoid": ("LOGISTIC", 1 / 256, -128), "Tanh": ("TANH", 1 / 128, 0)}
ARITHMETIC = {
    "Add": ("ADD", schema.AddOptionsT),
    "Sub": ("SUB", schema.SubOptionsT),
    "Mul": ("MUL", schema.MulOptionsT),
    "Div": ("DIV", schema.DivOptionsT),
}
BINARY = {"Max": "MAXIMUM", "Min": "MINIMUM", "And": "LOGICAL_AND", "Or": "LOGICAL_OR"}
COMPARE = {
    "Equal": "EQUAL",
    "Greater": "GREATER",
    "GreaterOrEqual": "GREATER_EQUAL",
    "Less": "LESS",
    "LessOrEqual": "LESS_EQUAL",
    "Xor": "NOT_EQUAL",
}


def aligned(call: Call, indices: Sequence[int]) -> tuple[list[Tensor], Perm]:
    """Operands in one layout, such that they broadcast, and that layout."""
    operands = [call.held(index) for index in indices]
    rank = max(len(held.shape) for held in operands)
    moved = [
        held.perm
        for held in operands
        if len(held.shape) == rank and not held.is_constant and held.perm != identity(rank)
    ]
    perm = moved[0] if moved else identity(rank)
    tensors = [_fitted(call, index, perm) for index in indices]
    # Kernels take bytes for codes: numbers are wider.
    tensors = [
        call.values.cast(t, INT32) if t.dtype.kind in "iu" and t.quantization is None else t
        for t in tensors
    ]
    if any(tensor.dtype == FLOAT for tensor in tensors):
        # What ONNX counts in integers may be held in real numbers here.
        tensors = [call.values.cast(t, FLOAT) if t.dtype == INT32 else t for t in tensors]
    return tensors, perm


def _fitted(call: Call, index: int, perm: Perm) -> Tensor:
    held, rank = call.held(index), len(perm)
    if len(held.shape) == rank:
        return call.tensor(index, perm)
    if perm == identity(rank) or all(size == 1 for size in held.shape):
        return call.tensor(index)
    full = (*[1] * (rank - len(held.shape)), *held.shape)
    array = held.numpy()
    if array is not None:
        known = np.transpose(array.reshape((1,) * (rank - array.ndim) + array.shape), perm)
        return call.values.graph.constant(known, quantization=held.quantization)
    if None in full:
        raise call.unsupported("it broadcasts a value of unknown shape over another layout")
    return call.values.transpose(call.values.reshape(call.tensor(index), full), perm)


def unary(call: Call, op: str, options: Any = None) -> None:
    """One operator, in whatever layout its operand is held."""
    perm = call.held(0).perm
    data = call.tensor(0, perm)
    call.give(call.emit(op, [data], options=options, quantization=call.target), perm)


def result_shape(call: Call, tensors: Sequence[Tensor], perm: Perm) -> Shape:
    """Shape of what tensors in one layout broadcast to, in that layout."""
    shape = logical(broadcast(*(tensor.shape for tensor in tensors)), perm)
    return permuted(call.output_shape(shape), perm)


@lowers(*UNARY)
def _unary(call: Call) -> None:
    unary(call, UNARY[call.node.op_type])


@lowers("Sigmoid", "Tanh", codes="rescaling")
def _fixed(call: Call) -> None:
    op, scale, zero_point = FIXED[call.node.op_type]
    perm = call.held(0).perm
    fixed = Quantization((scale,), zero_point) if call.with_codes else None
    call.give(call.emit(op, [call.tensor(0, perm)], quantization=fixed), perm)


@lowers("Add", "Mul", codes="rescaling")
@lowers("Sub", "Div")
def _arithmetic(call: Call) -> None:
    tensors, perm = aligned(call, [0, 1])
    op, options = ARITHMETIC[call.node.op_type]
    shape = result_shape(call, tensors, perm)
    activation = call.absorb_clamp() if tensors[0].dtype.kind in "fi" else 0
    call.give(
        call.emit(op, tensors, shape, options=options(activation), quantization=call.target), perm
    )


@lowers("Sum", "Max", "Min", "And", "Or", "Mean")
def _variadic(call: Call) -> None:
    count = len(call.node.inputs)
    tensors, perm = aligned(call, range(count))
    op = BINARY.get(call.node.op_type, "ADD")
    total = tensors[0]
    for tensor in tensors[1:]:
        shape = broadcast(total.shape, tensor.shape)
        options = schema.AddOptionsT() if op == "ADD" else None
        total = call.emit(op, [total, tensor], shape, options=options)
    if call.node.op_type == "Mean":
        total = call.emit("MUL", [total, call.number_tensor(1 / count)])
    call.give(total, perm)


@lowers(*COMPARE)
def _compare(call: Call) -> None:
    tensors, perm = aligned(call, [0, 1])
    shape = result_shape(call, tensors, perm)
    call.give(call.emit(COMPARE[call.node.op_type], tensors, shape, BOOL), perm)


@lowers("Where")
def _where(call: Call) -> None:
    tensors, perm = aligned(call, [0, 1, 2])
    shape = result_shape(call, tensors, perm)
    call.give(call.emit("SELECT_V2", tensors, shape, tensors[1].dtype), perm)


@lowers("Pow")
def _pow(call: Call) -> None:
    exponent = call.number(1)
    simple = {2.0: "SQUARE", 0.5: "SQRT", -0.5: "RSQRT"}
    if exponent in simple and call.tensor(0, call.held(0).perm).dtype == FLOAT:
        unary(call, simple[exponent])
        return
    tensors, perm = aligned(call, [0, 1])
    base = tensors[0]
    tensors[1] = call.values.cast(tensors[1], base.dtype)
    call.give(call.emit("POW", tensors, result_shape(call, tensors, perm)), perm)


@lowers("Reciprocal")
def _reciprocal(call: Call) -> None:
    perm = call.held(0).perm
    data = call.tensor(0, perm)
    one = call.number_tensor(1)
    call.give(call.emit("DIV", [one, data], data.shape, options=schema.DivOptionsT()), perm)


@lowers("Mod")
def _mod(call: Call) -> None:
    tensors, perm = aligned(call, [0, 1])
    shape = result_shape(call, tensors, perm)
    if not call.node.attributes.get_int("fmod", 0):
        call.give(call.emit("FLOOR_MOD", tensors, shape), perm)
        return
    # The remainder of the magnitudes, with the sign of the dividend.
    magnitudes = [call.emit("ABS", [tensor]) for tensor in tensors]
    rest = call.emit("FLOOR_MOD", magnitudes, shape)
    sign = call.emit("SIGN", [tensors[0]])
    call.give(call.emit("MUL", [rest, sign], shape, options=schema.MulOptionsT()), perm)


@lowers("Identity", "Dropout", codes="moving")
def _identity(call: Call) -> None:
    call.give_held(call.held(0))


@lowers("IsNaN")
def _is_nan(call: Call) -> None:
    perm = call.held(0).perm
    data = call.tensor(0, perm)
    call.give(call.emit("NOT_EQUAL", [data, data], dtype=BOOL), perm)


@lowers("IsInf")
def _is_inf(call: Call) -> None:
    perm = call.held(0).perm
    signs = [call.node.attributes.get_int(f"detect_{s}", 1) for s in ("positive", "negative")]
    if not any(signs):
        raise call.unsupported("it detects nothing")
    data = call.tensor(0, perm)
    data = call.emit("ABS", [data]) if all(signs) else data
    limit = call.number_tensor(math.inf if signs[0] else -math.inf)
    call.give(call.emit("EQUAL", [data, limit], data.shape, BOOL), perm)
