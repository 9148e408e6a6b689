"""One node of a file on its way to ONNX: its operands, options and result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from converters.litert_import.file import ABSENT, Array, Node
from converters.litert_import.values import AXIS, FIRST, Values
from edge_sdk.errors import SourceError

IMAGE_RANK = 4
REMEDY = (
    "run the file as it is with the engine litert, or export the model to ONNX from where "
    "it was trained"
)


class Call:
    """One node and what it is about.

    Args:
        node: The node.
        values: The values made so far.
    """

    def __init__(self, node: Node, values: Values) -> None:
        self.node = node
        self.values = values
        self.emit = values.emit

    def refuse(self, reason: str) -> SourceError:
        """The error for a node that has no form in ONNX."""
        output = self.values.tensor(self.node.outputs[0]).name if self.node.outputs else ""
        return SourceError(
            f"{self.node.op} is not supported in {self.values.file.path.name}: {reason}",
            where=f"subgraph 0, node {output!r}",
            remedy=REMEDY,
        )

    def index(self, position: int) -> int:
        """The tensor of an operand."""
        if not self.has(position):
            raise self.refuse(f"operand {position} is missing")
        return self.node.inputs[position]

    def has(self, position: int) -> bool:
        """Whether an optional operand is there."""
        return position < len(self.node.inputs) and self.node.inputs[position] != ABSENT

    def shape(self, position: int) -> tuple[int, ...]:
        """An operand's shape; -1 for a free dimension."""
        return self.values.tensor(self.index(position)).shape

    def dtype(self, position: int) -> str:
        """An operand's element type in the file."""
        return self.values.tensor(self.index(position)).dtype

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the first result; -1 for a free dimension."""
        return self.values.tensor(self.node.outputs[0]).shape

    @property
    def out_dtype(self) -> ir.DataType:
        """Element type of the first result in the file."""
        return ir.DataType.from_numpy(np.dtype(self.values.tensor(self.node.outputs[0]).dtype))

    def option(self, name: str, default: Any = None) -> Any:
        """A field of the options table."""
        found = getattr(self.node.options, name, default)
        return default if found is None else found

    def get(self, position: int, *, first: bool = False) -> ir.Value:
        """An operand's value, real numbers of a quantized one."""
        return self.values.get(self.index(position), first=first)

    def constant(self, position: int) -> Array:
        """An operand that has to be constant."""
        found = self.values.constant(self.index(position))
        if found is None:
            raise self.refuse(f"operand {position} is not constant")
        return found

    def known(self, position: int) -> Array | None:
        """An operand's values if it is constant."""
        return self.values.constant(self.index(position)) if self.has(position) else None

    def numbers(self, position: int) -> list[int]:
        """An operand that has to be a constant list of integers."""
        return [int(number) for number in self.constant(position).reshape(-1)]

    def int64(self, position: int) -> ir.Value:
        """An operand of integers as ONNX wants shapes, axes and indices."""
        found = self.known(position)
        if found is not None:
            return self.values.array(found, "int64")
        return self.emit("Cast", [self.get(position)], to=ir.DataType.INT64)

    def is_first(self, *positions: int) -> bool:
        """Whether these operands are best taken channels first: where a transpose is spared."""
        indices = [self.index(p) for p in positions]
        free = [i for i in indices if not self.values.is_constant(i)]
        return any(self.values.is_first(i) for i in free) and all(
            len(self.values.tensor(i).shape) == IMAGE_RANK for i in free
        )

    def operand(self, position: int, *, first: bool) -> ir.Value:
        """An operand that broadcasts; a constant of fewer axes gets those that are missing."""
        index = self.index(position)
        shape = self.shape(position)
        if not first or not self.values.is_constant(index):
            return self.get(position, first=first)
        if not shape:
            return self.get(position)
        full = (1,) * (IMAGE_RANK - len(shape)) + shape
        found = self.values.tensor(index).quantization
        if full != shape and found is not None and found.axis is not None:
            raise self.refuse("its constant has a scale per channel")
        return self.values.weight(index, FIRST, shape=full)

    def axis(self, axis: int, rank: int, *, first: bool) -> int:
        """Where an axis of the file's layout is."""
        axis %= max(rank, 1)
        return AXIS[axis] if first else axis

    def axes_of(self, rows: Sequence[Any], *, first: bool) -> list[Any]:
        """A list with an entry per axis, in the order of the layout."""
        return [rows[axis] for axis in FIRST] if first else list(rows)

    def set(self, value: ir.Value, output: int = 0, *, first: bool = False) -> None:
        """Says what a result is: real numbers, after the activation that the node includes."""
        code = self.option("fusedActivationFunction", 0)
        if code not in ACTIVATIONS:
            raise self.refuse(f"it includes the activation {code}")
        activation = ACTIVATIONS[code]
        if activation is not None:
            value = activation(self.values, value)
        self.values.set(self.node.outputs[output], value, first=first)

    def scalar(self, number: float, like: str = "float32") -> ir.Value:
        """A number of our own."""
        return self.values.array(number, like)


def clip(values: Values, value: ir.Value, low: float, high: float) -> ir.Value:
    """``value`` limited to a range."""
    ends = [values.array(np.float32(end)) for end in (low, high)]
    return values.emit("Clip", [value, *ends])


Activation = Callable[[Values, ir.Value], ir.Value]
ACTIVATIONS: dict[int, Activation | None] = {
    0: None,
    1: lambda values, value: values.emit("Relu", [value]),
    2: lambda values, value: clip(values, value, -1, 1),
    3: lambda values, value: clip(values, value, 0, 6),
    4: lambda values, value: values.emit("Tanh", [value]),
}
"""``ActivationFunctionType`` -> what it does."""

Import = Callable[[Call], None]
OPERATORS: dict[str, Import] = {}
"""Operator -> the function that imports it; filled by the modules of ``operators``."""


def operator(*names: str) -> Callable[[Import], Import]:
    """Registers a function for these operators."""

    def register(function: Import) -> Import:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register
