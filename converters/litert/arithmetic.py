"""Formulas written as arithmetic on tensors."""

from __future__ import annotations

from collections.abc import Callable

from ai_edge_litert import schema_py_generated as schema

from converters.litert.call import Call
from converters.litert.tensors import Perm, Tensor, broadcast


class Math:
    """Arithmetic on tensors of one call, with Python numbers as scalars."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def number(self, number: float) -> Tensor:
        """A scalar."""
        return self.call.number_tensor(number)

    def unary(self, op: str, x: Tensor) -> Tensor:
        """An operator of one operand."""
        return self.call.emit(op, [x])

    def add(self, x: Tensor, y: Tensor | float) -> Tensor:
        """``x + y``."""
        return self._binary("ADD", x, y, schema.AddOptionsT())

    def sub(self, x: Tensor, y: Tensor | float) -> Tensor:
        """``x - y``."""
        return self._binary("SUB", x, y, schema.SubOptionsT())

    def mul(self, x: Tensor, y: Tensor | float) -> Tensor:
        """``x * y``."""
        return self._binary("MUL", x, y, schema.MulOptionsT())

    def div(self, x: Tensor, y: Tensor | float) -> Tensor:
        """``x / y``."""
        return self._binary("DIV", x, y, schema.DivOptionsT())

    def _binary(self, op: str, x: Tensor, y: Tensor | float, options: object) -> Tensor:
        right = y if isinstance(y, Tensor) else self.number(y)
        shape = broadcast(x.shape, right.shape)
        return self.call.emit(op, [x, right], shape, options=options)


def compose(call: Call, function: Callable[[Math, Tensor], Tensor]) -> None:
    """A function of one operand, in whatever layout that is held."""
    perm: Perm = call.held(0).perm
    call.give(function(Math(call), call.tensor(0, perm)), perm)
