"""One ONNX node as its lowering sees it, and the table of lowerings.

A lowering is a function of a :class:`Call`. It asks for operands in the layout it
needs, appends TensorFlow Lite operators, and gives the results::

    @lowers("Neg")
    def neg(call: Call) -> None:
        data = call.held(0)
        call.give(call.emit("NEG", [call.tensor(0, data.perm)]), data.perm)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from converters.litert.clamps import clamp_behind
from converters.litert.tensors import (
    FLOAT,
    INT8,
    Array,
    Perm,
    Quantization,
    Shape,
    Tensor,
    identity,
    merged,
    permuted,
    unknown,
)
from converters.litert.values import Held, Values, computed, hold
from converters.passes.graph_tools import is_op, only_consumer, tensor_of
from edge_sdk.errors import UnsupportedOperatorError

ENGINE = "LiteRT"
REMEDY = "leave this model on the onnx engine, or export it without this operator"

# What a kernel computes with codes: each operand at its own scale, or by moving codes about.
Weights = Literal["float32", "float16", "int8"]
Codes = Literal["rescaling", "moving"]
Lowering = Callable[["Call"], None]

LOWERINGS: dict[tuple[str, str], Lowering] = {}
CODES: dict[tuple[str, str], Codes] = {}


def lowers(
    *op_types: str, domain: str = "", codes: Codes | None = None
) -> Callable[[Lowering], Lowering]:
    """Registers the lowering of operators.

    Args:
        *op_types: The operators.
        domain: Their domain.
        codes: Whether it can compute with codes of quantized values.
    """

    def register(function: Lowering) -> Lowering:
        for op_type in op_types:
            LOWERINGS[domain, op_type] = function
            if codes is not None:
                CODES[domain, op_type] = codes
        return function

    return register


class Call:
    """One node with its operands.

    Args:
        node: The node.
        values: The values held so far; results are added there.
        weights: How large weights are stored.
        done: Nodes whose work another one has done.

    Attributes:
        target: What the results' codes must stand for, when computing with codes.
        with_codes: Whether operands are codes.
    """

    def __init__(
        self,
        node: ir.Node,
        values: Values,
        weights: Weights,
        done: set[ir.Node],
    ) -> None:
        self.node = node
        self.values = values
        self.weights = weights
        self._done = done
        self._outputs = list(node.outputs)
        self.target: Quantization | None = None
        self.with_codes = False
        self._choose_codes()

    # Operands

    def has(self, index: int) -> bool:
        """Whether the node has that input."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def held(self, index: int) -> Held:
        """What stands for an input; its codes, when computing with codes."""
        value = self.node.inputs[index]
        assert value is not None
        held = self._held(value)
        return held.codes if self.with_codes and held.codes is not None else held

    def tensor(self, index: int, perm: Perm | None = None) -> Tensor:
        """An input as a tensor, its axes in order or in another permutation."""
        return self.values.form(self.held(index), perm)

    def shape(self, index: int = 0) -> Shape:
        """Shape of an input."""
        return self.held(index).shape

    def constant(self, index: int) -> Array | None:
        """The elements of an input, if it is there and constant."""
        if not self.has(index):
            return None
        held = self.held(index)
        real = Held(held.shape, codes=held) if held.quantization is not None else held
        return real.numpy()

    def number(self, index: int, default: float | None = None) -> float | None:
        """The one element of an input; ``default`` if it is left out, ``None`` if not constant."""
        array = self.constant(index)
        if array is None or array.size != 1:
            return None if self.has(index) else default
        return float(array.reshape(()))

    def integers(self, name: str, index: int) -> tuple[int, ...] | None:
        """Integers that older opsets hold in an attribute; ``None`` if left out or not constant."""
        given = self.node.attributes.get_ints(name)
        if given is not None:
            return tuple(given)
        array = self.constant(index)
        return None if array is None else tuple(int(item) for item in array.reshape(-1))

    def known(self, name: str, index: int) -> tuple[int, ...] | None:
        """Like :meth:`integers`, but refuses those known only at run time."""
        found = self.integers(name, index)
        if found is None and self.has(index):
            raise self.unsupported(f"its {name} are known only at run time")
        return found

    def axis(self, default: int | None = None, rank: int | None = None) -> int:
        """The attribute ``axis``, not negative."""
        rank = len(self.shape()) if rank is None else rank
        axis = self.node.attributes.get_int("axis", default)
        assert axis is not None
        return axis % rank if rank else 0

    def last(self, axis: int) -> Perm:
        """A permutation of the first input with ``axis`` last: as it is held, if that fits."""
        held = self.held(0).perm
        if held[-1] == axis:
            return held
        return (*(other for other in identity(len(held)) if other != axis), axis)

    # Results

    @property
    def output(self) -> ir.Value:
        """The value that the first result stands for."""
        return self._outputs[0]

    def output_shape(self, shape: Shape | None = None, index: int = 0) -> Shape:
        """What shape inference says about a result, together with ``shape``.

        Raises:
            UnsupportedOperatorError: Not even the rank is known.
        """
        inferred = shape_of(self._outputs[index])
        if inferred is not None:
            known = self.values.named
            inferred = tuple(s if isinstance(s, int) or s in known else None for s in inferred)
        found = merged(shape, inferred)
        if found is None:
            raise self.unsupported("the rank of its result is not known")
        return found

    def emit(
        self,
        op: str,
        inputs: Sequence[Tensor | None],
        shape: Shape | None = None,
        dtype: np.dtype[Any] | None = None,
        options: Any = None,
        quantization: Quantization | None = None,
    ) -> Tensor:
        """Appends an operator with one output; shape and type are those of the first input."""
        first = inputs[0]
        assert first is not None
        if quantization is None and dtype is None:
            quantization = first.quantization
        return self.values.add(
            op,
            list(inputs),
            first.shape if shape is None else shape,
            (INT8 if quantization else first.dtype) if dtype is None else dtype,
            options,
            quantization,
        )

    def squeeze(self, tensor: Tensor, axes: Sequence[int]) -> Tensor:
        """The tensor without axes of size 1."""
        dropped = {axis % tensor.rank for axis in axes} if axes else set()
        if not dropped:
            return tensor
        shape = tuple(size for axis, size in enumerate(tensor.shape) if axis not in dropped)
        if unknown(shape) <= 1:
            return self.values.reshape(tensor, shape)
        options = schema.SqueezeOptionsT(squeezeDims=sorted(dropped))
        return self.emit("SQUEEZE", [tensor], shape, options=options)

    def unsqueeze(self, tensor: Tensor, axes: Sequence[int]) -> Tensor:
        """The tensor with axes of size 1 at these places of the result."""
        rank = tensor.rank + len(axes)
        places = sorted(axis % rank for axis in axes)
        sizes = iter(tensor.shape)
        full = tuple(1 if axis in places else next(sizes) for axis in range(rank))
        if unknown(full) <= 1:
            return self.values.reshape(tensor, full)
        for axis in places:
            shape = (*tensor.shape[:axis], 1, *tensor.shape[axis:])
            options = schema.ExpandDimsOptionsT()
            inputs = [tensor, self.values.integers(axis)]
            tensor = self.emit("EXPAND_DIMS", inputs, shape, options=options)
        return tensor

    def refuse_codes(self) -> None:
        """Computes with real numbers after all."""
        self.with_codes, self.target = False, None

    def number_tensor(self, number: float, like: Tensor | None = None) -> Tensor:
        """A constant scalar of the type of ``like``."""
        dtype = FLOAT if like is None else like.dtype
        return self.values.graph.constant(np.array(number, dtype))

    def give(self, tensor: Tensor, perm: Perm | None = None, index: int = 0) -> None:
        """Says what holds a result."""
        output = self._outputs[index]
        inferred = shape_of(output)
        if inferred is not None and len(inferred) == tensor.rank:
            inferred = permuted(inferred, identity(tensor.rank) if perm is None else perm)
            tensor.shape = merged(tensor.shape, inferred) or tensor.shape
        self.values.name_sizes(tensor)
        if tensor.quantization is not None and self.with_codes:
            target = codes_of(output)
            if target is not None:
                tensor = self.values.requantize(tensor, target)
            codes = hold(tensor, perm)
            self.values[output] = Held(codes.shape, codes=codes)
        else:
            self.values[output] = hold(tensor, perm)

    def give_held(self, held: Held, index: int = 0) -> None:
        """Says what stands for a result, in all its forms."""
        if self.with_codes and held.quantization is not None:
            held = Held(held.shape, codes=held)
        self.values[self._outputs[index]] = held

    def within(self, values: Values) -> Call:
        """The same node, emitting into another graph."""
        inside = copy(self)
        inside.values = values
        return inside

    # The nodes behind it

    def follower(self, *op_types: str) -> ir.Node | None:
        """The only user of the first result, if it is one of these operators of this graph."""
        user = only_consumer(self.output)
        inside = user is not None and user.graph is self.node.graph
        return user if inside and is_op(user, *op_types) else None

    def absorbed(self, value: ir.Value) -> bool:
        """Whether only nodes use a value whose work this one has done."""
        users = {node for node, _ in value.uses()}
        return bool(users) and users <= self._done and not value.is_graph_output()

    def absorb(self, follower: ir.Node) -> None:
        """Does a follower's work too: the first result is now the follower's."""
        self._done.add(follower)
        self._outputs[0] = follower.outputs[0]

    def absorb_clamp(self) -> int:
        """Applies the clamp behind the node too, if the schema has a word for it: that word."""
        clamp = clamp_behind(self.output)
        if clamp is None:
            return 0
        self.absorb(clamp[0])
        return clamp[1]

    def unsupported(self, reason: str, remedy: str = REMEDY) -> UnsupportedOperatorError:
        """The error that says why this node cannot be lowered."""
        name = self.node.name or self.node.outputs[0].name or ""
        return UnsupportedOperatorError(
            self.node.op_type, name, engine=ENGINE, reason=reason, remedy=remedy
        )

    def _held(self, value: ir.Value) -> Held:
        if value not in self.values:
            raise self.unsupported(f"its input {value.name!r} is text, or not a tensor")
        return self.values[value]

    def _choose_codes(self) -> None:
        kind = CODES.get((self.node.domain, self.node.op_type))
        operands = [v for v in self.node.inputs if v is not None and _is_number(v)]
        if kind is None or not operands:
            return
        if kind == "moving":
            first = self._held(operands[0]).codes
            self.with_codes = first is not None and not first.is_constant
            return
        quantized = all(self._held(value).codes is not None for value in operands)
        clamp = clamp_behind(self.output)
        result = self.output if clamp is None else clamp[0].outputs[0]
        self.target = codes_of(result) if quantized else None
        self.with_codes = self.target is not None


def _is_number(value: ir.Value) -> bool:
    """Whether a value may be quantized: sizes, axes and biases of layers are not."""
    return value.dtype is None or value.dtype.is_floating_point()


def codes_of(value: ir.Value) -> Quantization | None:
    """What the codes of a value stand for, if it is only used after being quantized."""
    found: Quantization | None = None
    for node, _ in value.uses():
        quantization = quantization_of(node) if is_op(node, "QuantizeLinear") else None
        if quantization is None or found not in (None, quantization):
            return None
        found = quantization
    return None if value.is_graph_output() else found


def quantization_of(node: ir.Node) -> Quantization | None:
    """Scale and zero point of a ``QuantizeLinear`` or ``DequantizeLinear``, as those of int8.

    Codes of uint8 are those of int8 plus 128. ``None`` where they are not constant or
    do not have 8 bits.
    """
    scale = tensor_of(node.inputs[1])
    if scale is None:
        return None
    zero = tensor_of(node.inputs[2]) if len(node.inputs) > 2 else None
    points = np.zeros(1, _codes_type(node)) if zero is None else zero.numpy().reshape(-1)
    scales = scale.numpy().reshape(-1).astype(np.float32)
    if points.dtype not in (np.uint8, np.int8, np.int32) or (points != points[0]).any():
        return None
    shift = 128 if points.dtype == np.uint8 else 0
    axis = node.attributes.get_int("axis", 1) if scale.size > 1 else 0
    return Quantization(tuple(scales.tolist()), int(points[0]) - shift, axis)


def _codes_type(node: ir.Node) -> np.dtype[Any]:
    """The type of the codes where no zero point says it."""
    codes = node.inputs[0] if node.op_type == "DequantizeLinear" else node.outputs[0]
    return np.dtype(np.uint8 if codes is None or codes.dtype is None else codes.dtype.numpy())


def shape_of(value: ir.Value) -> Shape | None:
    """The shape that a value is annotated with."""
    if value.shape is None:
        return None
    sizes = (size if isinstance(size, int) else size.value for size in value.shape)
    # Some exporters write -1 for a size that is left open.
    return tuple(None if isinstance(size, int) and size < 0 else size for size in sizes)


def type_of(value: ir.Value) -> np.dtype[Any] | None:
    """The element type that stands for a value's own."""
    return None if value.dtype is None else computed(np.dtype(value.dtype.numpy()))
