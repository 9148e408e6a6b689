"""One graph under construction: tensors and operators in the order they run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.litert.tensors import Array, Quantization, Tensor


def digest(array: Array) -> bytes:
    """What tells arrays of different content apart."""
    return hashlib.blake2b(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).digest()


@dataclass(eq=False)
class Operator:
    """One operator by its name in the schema.

    Attributes:
        op: Name in ``BuiltinOperator``.
        inputs: Its inputs; ``None`` for one left out.
        outputs: Its outputs.
        options: The schema's options object, if the operator has one.
    """

    op: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: Any = None


@dataclass(eq=False)
class Subgraph:
    """Tensors and operators of one graph.

    Attributes:
        name: Its name.
        inputs: What callers give.
        outputs: What they get.
        operators: In an order in which they can run.
    """

    name: str
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    _constants: dict[object, Tensor] = field(default_factory=dict)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that something refers to, inputs first, in order of appearance."""
        found = dict.fromkeys(self.inputs)
        for operator in self.operators:
            found.update((tensor, None) for tensor in operator.inputs if tensor is not None)
            found.update((tensor, None) for tensor in operator.outputs)
        found.update((tensor, None) for tensor in self.outputs)
        return list(found)

    def constant(
        self, array: Array, name: str = "constant", quantization: Quantization | None = None
    ) -> Tensor:
        """A constant tensor; equal ones are one."""
        array = np.asarray(array, order="C")
        key = array.dtype.str, array.shape, digest(array), quantization
        if key not in self._constants:
            self._constants[key] = Tensor(name, array.dtype, array.shape, quantization, array)
        return self._constants[key]

    def emit(
        self,
        op: str,
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Tensor],
        options: Any = None,
    ) -> None:
        """Appends an operator."""
        self.operators.append(Operator(op, tuple(inputs), tuple(outputs), options))

    def prune(self) -> None:
        """Drops operators whose results nothing uses."""
        used = set(self.outputs)
        kept = []
        for operator in reversed(self.operators):
            if used & set(operator.outputs):
                kept.append(operator)
                used.update(tensor for tensor in operator.inputs if tensor is not None)
        self.operators = kept[::-1]
