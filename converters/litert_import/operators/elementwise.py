"""What computes element by element, in whichever layout its operands have."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from converters.litert_import.call import Call, clip, operator

BINARY = {
    "ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div", "POW": "Pow",
    "MAXIMUM": "Max", "MINIMUM": "Min",
    "EQUAL": "Equal", "LESS": "Less", "LESS_EQUAL": "LessOrEqual",
    "GREATER": "Greater", "GREATER_EQUAL": "GreaterOrEqual",
    "LOGICAL_AND": "And", "LOGICAL_OR": "Or", "PRELU": "PRelu",
}  # fmt: skip
UNARY = {
    "ABS": "Abs", "CEIL": "Ceil", "FLOOR": "Floor", "ROUND": "Round", "EXP": "Exp", "LOG": "Log",
    "SQRT": "Sqrt", "NEG": "Neg", "SIN": "Sin", "COS": "Cos", "TANH": "Tanh", "SIGN": "Sign",
    "LOGISTIC": "Sigmoid", "RELU": "Relu", "ELU": "Elu", "HARD_SWISH": "HardSwish",
    "LOGICAL_NOT": "Not",
}  # fmt: skip
LIMITS = {"RELU6": (0, 6), "RELU_N1_TO_1": (-1, 1), "RELU_0_TO_1": (0, 1)}


def pair(call: Call) -> tuple[ir.Value, ir.Value, bool]:
    """Both operands, and whether they are channels first."""
    first = call.is_first(0, 1)
    return call.operand(0, first=first), call.operand(1, first=first), first


@operator(*BINARY)
def binary(call: Call) -> None:
    """Two operands that broadcast."""
    left, right, first = pair(call)
    call.set(call.emit(BINARY[call.node.op], [left, right]), first=first)


@operator("NOT_EQUAL")
def not_equal(call: Call) -> None:
    """``not (a == b)``."""
    left, right, first = pair(call)
    call.set(call.emit("Not", [call.emit("Equal", [left, right])]), first=first)


@operator("SQUARED_DIFFERENCE")
def squared_difference(call: Call) -> None:
    """``(a - b) ** 2``."""
    left, right, first = pair(call)
    difference = call.emit("Sub", [left, right])
    call.set(call.emit("Mul", [difference, difference]), first=first)


@operator("FLOOR_DIV", "FLOOR_MOD")
def floor_division(call: Call) -> None:
    """``floor(a / b)``, and what is left of ``a``, which has the sign of ``b``."""
    left, right, first = pair(call)
    if call.dtype(0).startswith("float"):
        quotient = call.emit("Floor", [call.emit("Div", [left, right])])
        rest = call.emit("Sub", [left, call.emit("Mul", [quotient, right])])
    else:  # Mod of integers is what is left after the floor, as Python's
        rest = call.emit("Mod", [left, right])
        quotient = call.emit("Div", [call.emit("Sub", [left, rest]), right])
    call.set(quotient if call.node.op == "FLOOR_DIV" else rest, first=first)


@operator(*UNARY)
def unary(call: Call) -> None:
    """One operand."""
    first = call.is_first(0)
    call.set(call.emit(UNARY[call.node.op], [call.get(0, first=first)]), first=first)


@operator(*LIMITS)
def limited(call: Call) -> None:
    """Limited to a range."""
    first = call.is_first(0)
    call.set(clip(call.values, call.get(0, first=first), *LIMITS[call.node.op]), first=first)


@operator("SQUARE", "RSQRT")
def square_or_reciprocal_root(call: Call) -> None:
    """``x * x``, ``1 / sqrt(x)``."""
    first = call.is_first(0)
    value = call.get(0, first=first)
    if call.node.op == "SQUARE":
        call.set(call.emit("Mul", [value, value]), first=first)
    else:
        call.set(call.emit("Reciprocal", [call.emit("Sqrt", [value])]), first=first)


@operator("LEAKY_RELU")
def leaky_relu(call: Call) -> None:
    """Negative values times ``alpha``."""
    first, alpha = call.is_first(0), float(call.option("alpha", 0.0))
    call.set(call.emit("LeakyRelu", [call.get(0, first=first)], alpha=alpha), first=first)


@operator("GELU")
def gelu(call: Call) -> None:
    """``x Φ(x)``, by the error function or by the approximation with tanh."""
    first = call.is_first(0)
    value, emit = call.get(0, first=first), call.emit
    half, one = call.scalar(0.5), call.scalar(1)
    if call.option("approximate", False):
        cube = emit("Mul", [emit("Mul", [value, value]), value])
        inner = emit("Add", [value, emit("Mul", [cube, call.scalar(0.044715)])])
        share = emit("Tanh", [emit("Mul", [inner, call.scalar(math.sqrt(2 / math.pi))])])
    else:
        share = emit("Erf", [emit("Div", [value, call.scalar(math.sqrt(2))])])
    scaled = emit("Mul", [value, emit("Add", [share, one])])
    call.set(emit("Mul", [scaled, half]), first=first)


@operator("CAST")
def cast(call: Call) -> None:
    """To the result's type."""
    first = call.is_first(0)
    call.set(call.emit("Cast", [call.get(0, first=first)], to=call.out_dtype), first=first)


@operator("QUANTIZE", "DEQUANTIZE")
def requantize(call: Call) -> None:
    """The same real numbers, rounded to the result's scale, or no longer."""
    found = call.known(0)
    if found is not None and call.node.op == "DEQUANTIZE":
        call.values.fold(call.node.outputs[0], found.astype(np.float32))
        return
    first = call.is_first(0)
    value = call.get(0, first=first)
    if call.dtype(0) == "float16":
        value = call.emit("Cast", [value], to=ir.DataType.FLOAT)
    elif not call.values.is_quantized(call.node.outputs[0]):
        value = call.emit("Identity", [value])  # a value has one name
    call.set(value, first=first)


@operator("DENSIFY")
def densify(call: Call) -> None:
    """A sparse constant with its zeros, which it has since it was read."""
    call.values.fold(call.node.outputs[0], call.constant(0))


@operator("SELECT", "SELECT_V2")
def select(call: Call) -> None:
    """Of two operands what a third says."""
    operands = [call.get(i) for i in range(3)]
    missing = len(call.shape(1)) - len(call.shape(0))
    if call.node.op == "SELECT" and len(call.shape(0)) == 1 and missing:
        # The older operator's condition chooses whole rows.
        axes = call.values.array(range(1, missing + 1), "int64")
        operands[0] = call.emit("Unsqueeze", [operands[0], axes])
    call.set(call.emit("Where", operands))
