"""Tensors of a file as ONNX values: in the layout and the form that a node asks for.

A tensor of four axes may exist channels last, as in the file, or channels first, as ONNX
convolutions have it; a quantized one as its integers or as the real numbers they stand for.
What is asked for and not there yet is derived by one node, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from converters.litert_import.file import Array, File, Tensor

OPSET = 17
SHORT_OPSET = 21  # the first whose QuantizeLinear knows int16
FIRST = (0, 3, 1, 2)
LAST = (0, 2, 3, 1)
# The axis of a channels-last tensor -> where it is channels first.
AXIS = {0: 0, 1: 2, 2: 3, 3: 1}
ACTIVATIONS = ("int8", "uint8", "int16")
INTEGERS = (*ACTIVATIONS, "int32")  # that ONNX knows as quantized; int32 are biases


@dataclass(frozen=True)
class _Form:
    real: bool
    first: bool


class Values:
    """The ONNX values of a file's tensors, and the nodes that make them.

    Args:
        file: The file.

    Attributes:
        file: The file.
        opset: That of the graph.
        nodes: In order.
        initializers: Constants.
    """

    def __init__(self, file: File) -> None:
        self.file = file
        short = any(t.dtype == "int16" and t.quantization is not None for t in file.tensors)
        self.opset = SHORT_OPSET if short else OPSET
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self._found: dict[int, dict[_Form, ir.Value]] = {}
        self._folded: dict[int, Array] = {}
        self._taken: set[str] = {name for name, _ in (*file.inputs, *file.outputs)}

    def tensor(self, index: int) -> Tensor:
        """What the file says of a tensor."""
        return self.file.tensors[index]

    def is_quantized(self, index: int) -> bool:
        """Whether a tensor's integers stand for real numbers."""
        tensor = self.tensor(index)
        return tensor.quantization is not None and tensor.dtype in ACTIVATIONS

    def is_constant(self, index: int) -> bool:
        """Whether a tensor's values are known here."""
        return index in self._folded or self.tensor(index).data is not None

    def constant(self, index: int) -> Array | None:
        """Values of a constant: of a quantized one the real numbers; else ``None``."""
        if index in self._folded:
            return self._folded[index]
        tensor = self.tensor(index)
        if tensor.data is None or tensor.quantization is None:
            return tensor.data
        shape = [1] * tensor.data.ndim
        if tensor.quantization.axis is not None:
            shape[tensor.quantization.axis] = -1
        scale = tensor.quantization.scale.reshape(shape or ())
        zero = tensor.quantization.zero.reshape(shape or ()).astype(np.float32)
        return ((tensor.data.astype(np.float32) - zero) * scale).astype(np.float32)

    def fold(self, index: int, values: Array) -> None:
        """Makes a tensor a constant."""
        self._folded[index] = values

    def is_first(self, index: int) -> bool:
        """Whether a tensor exists channels first only."""
        forms = self._found.get(index, {})
        return bool(forms) and all(form.first for form in forms)

    def set(self, index: int, value: ir.Value, *, first: bool = False) -> None:
        """Says what a tensor is: its real numbers, rounded to integers here if it is quantized."""
        tensor = self.tensor(index)
        if self.is_quantized(index):
            value = self.emit("QuantizeLinear", [value, *self._parameters(tensor)])
        self.set_raw(index, value, first=first)

    def set_raw(self, index: int, value: ir.Value, *, first: bool = False) -> None:
        """Says what a tensor is: of a quantized one its integers."""
        tensor = self.tensor(index)
        value.name = value.name or self.name(tensor.name)
        value.dtype = ir.DataType.from_numpy(np.dtype(tensor.dtype))
        value.shape = ir.Shape(
            None if size < 0 else size for size in permuted(tensor.shape, FIRST if first else None)
        )
        self._found.setdefault(index, {})[_Form(not self.is_quantized(index), first)] = value

    def get(self, index: int, *, real: bool = True, first: bool = False) -> ir.Value:
        """A tensor's value in some form; other than a quantized tensor's, all are real."""
        real = real or not self.is_quantized(index)
        forms = self._found.setdefault(index, {})
        form = _Form(real, first)
        if form not in forms:
            forms[form] = self._derived(index, form)
        return forms[form]

    def _derived(self, index: int, form: _Form) -> ir.Value:
        forms, tensor = self._found[index], self.tensor(index)
        if not forms and self.is_constant(index):
            return self.weight(index, FIRST if form.first else None, real=form.real)
        if not forms:
            raise ValueError(f"tensor {tensor.name!r} is used before it is made")
        raw = forms.get(_Form(not self.is_quantized(index), form.first))
        if raw is None:  # in the other layout alone
            other = self.get(index, real=form.real, first=not form.first)
            return self.emit("Transpose", [other], perm=FIRST if form.first else LAST)
        return self.emit("DequantizeLinear", [raw, *self._parameters(tensor)])

    def weight(
        self,
        index: int,
        axes: Sequence[int] | None = None,
        *,
        shape: Sequence[int] | None = None,
        real: bool = True,
        float_layer: bool = False,
    ) -> ir.Value:
        """A constant, its axes in another order.

        Args:
            index: The tensor.
            axes: New order of axes, after ``shape``.
            shape: Reshaped to this first; a scale per index must keep its axis.
            real: Whether its real numbers are meant.
            float_layer: Whether it is used with floats, so that its integers save
                space in the file alone.
        """
        tensor = self.tensor(index)
        name = self.name(tensor.name)
        integers = tensor.dtype in INTEGERS and index not in self._folded
        if tensor.quantization is None or tensor.data is None or not integers or float_layer:
            return self._initializer(name, _arranged(self._values(index), shape, axes))
        data = self._initializer(name, _arranged(tensor.data, shape, axes))
        if not real:
            return data
        axis = tensor.quantization.axis
        if axis is not None and axes is not None:
            axis = list(axes).index(axis)
        extra = {} if axis is None else {"axis": axis}
        return self.emit("DequantizeLinear", [data, *self._parameters(tensor)], **extra)

    def array(self, values: Any, dtype: str | None = None, name: str = "constant") -> ir.Value:
        """A constant of our own."""
        return self._initializer(self.name(name), np.asarray(values, dtype))

    def emit(self, op: str, inputs: Sequence[ir.Value | None], **attributes: Any) -> ir.Value:
        """Adds a node and returns its only output."""
        return self.emit_all(op, inputs, 1, **attributes)[0]

    def emit_all(
        self, op: str, inputs: Sequence[ir.Value | None], outputs: int, **attributes: Any
    ) -> Sequence[ir.Value]:
        """Adds a node and returns its outputs."""
        node = ir.node(op, list(inputs), attributes=attributes, num_outputs=outputs)
        node.name = self.name(f"{op}_{len(self.nodes)}")
        self.nodes.append(node)
        return node.outputs

    def name(self, wanted: str) -> str:
        """A name that nothing else has."""
        name, number = wanted or "value", 1
        while name in self._taken:
            name, number = f"{wanted or 'value'}_{number}", number + 1
        self._taken.add(name)
        return name

    def finish(self) -> None:
        """Names what has none yet."""
        for node in self.nodes:
            for value in node.outputs:
                value.name = value.name or self.name(f"{node.name}_out")

    def _values(self, index: int) -> Array:
        values = self.constant(index)
        if values is None:
            raise ValueError(f"tensor {self.tensor(index).name!r} is not constant")
        # Half precision saves space in the file alone: LiteRT computes in single.
        return values.astype(np.float32) if values.dtype == np.float16 else values

    def _parameters(self, tensor: Tensor) -> tuple[ir.Value, ir.Value]:
        found = tensor.quantization
        if found is None:
            raise ValueError(f"tensor {tensor.name!r} has no scale")
        scale, zero = found.scale, found.zero.astype(tensor.dtype)
        if found.axis is None:
            scale, zero = scale.reshape(()), zero.reshape(())
        name = tensor.name or "value"
        return (
            self._initializer(self.name(f"{name}_scale"), scale),
            self._initializer(self.name(f"{name}_zero"), zero),
        )

    def _initializer(self, name: str, values: Array) -> ir.Value:
        value = ir.Value(name=name, const_value=ir.Tensor(np.asarray(values, order="C"), name=name))
        value.dtype = ir.DataType.from_numpy(values.dtype)
        value.shape = ir.Shape(values.shape)
        self.initializers.append(value)
        return value


def permuted(shape: Sequence[int], axes: Iterable[int] | None) -> tuple[int, ...]:
    """A shape with its axes in another order."""
    return tuple(shape) if axes is None else tuple(shape[axis] for axis in axes)


def _arranged(values: Array, shape: Sequence[int] | None, axes: Sequence[int] | None) -> Array:
    if shape is not None:
        values = values.reshape(shape)
    return values if axes is None else values.transpose(axes)
