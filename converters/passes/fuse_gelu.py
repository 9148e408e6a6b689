"""GELU written out as primitive operators becomes one node.

Recognised, whatever the order and grouping of the factors:
``x * 0.5 * (1 + erf(x / √2))`` and its tanh approximation
``x * 0.5 * (1 + tanh(√(2/π) * (x + 0.044715 x³)))`` (Hendrycks and Gimpel, 2016).
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Literal

import onnx_ir as ir

from converters.passes.base import GraphPass, Options
from converters.passes.graph_tools import (
    CONTRIB,
    Editor,
    is_op,
    only_consumer,
    producer,
    same_rank,
    scalar,
)

STANDARD_OPSET = 20
# Exporters round the constants, down to float16.
TOLERANCE = 1e-3


class FuseGeluOptions(Options, frozen=True, kw_only=True):
    """Options of :class:`FuseGelu`.

    Attributes:
        domain: ``contrib`` for onnxruntime's ``Gelu`` and ``FastGelu``; ``standard`` for
            ONNX's ``Gelu``, which exists from opset 20 on.
    """

    domain: Literal["contrib", "standard"] = "contrib"


class FuseGelu(GraphPass):
    """Replaces written-out GELU by one node."""

    name = "fuse-gelu"
    options_type = FuseGeluOptions

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Rewrites one graph."""
        standard = self.options.domain == "standard"
        if standard and model.opset_imports.get("", 0) < STANDARD_OPSET:
            return 0
        editor = Editor(graph, model)
        changes = 0
        for node in graph:
            matched = _gelu(node.outputs[0]) if is_op(node, "Mul", "Div") else None
            if matched is None:
                continue
            x, form = matched
            name = node.name or "gelu"
            if standard:
                approximate = "tanh" if form == "Tanh" else "none"
                fused = editor.node(
                    "Gelu", [x], before=node, name=f"{name}_gelu", approximate=approximate
                )
            else:
                op_type = "FastGelu" if form == "Tanh" else "Gelu"
                fused = editor.node(op_type, [x], before=node, name=f"{name}_gelu", domain=CONTRIB)
            editor.redirect(node.outputs[0], fused)
            changes += 1
        if changes:
            editor.prune()
        return changes


def _gelu(value: ir.Value) -> tuple[ir.Value, str] | None:
    """``x`` and the inner function (``Erf`` or ``Tanh``) if ``value`` is a GELU of ``x``."""
    coefficient, factors = _product(value)
    if len(factors) != 2 or not _close(coefficient, 0.5):
        return None
    for x, gate in (factors, factors[::-1]):
        if not same_rank(x, value):
            continue
        inner = _one_plus(gate)
        erf, tanh = producer(inner, "Erf"), producer(inner, "Tanh")
        if erf is not None and _is_power(erf.inputs[0], x, 1, math.sqrt(0.5)):
            return x, "Erf"
        if tanh is not None and _is_tanh_argument(tanh.inputs[0], x):
            return x, "Tanh"
    return None


def _is_tanh_argument(value: ir.Value | None, x: ir.Value) -> bool:
    """Whether ``value`` is √(2/π) * (x + 0.044715 x³), also as √(2/π) * x * (1 + 0.044715 x²)."""
    if value is None:
        return False
    coefficient, factors = _product(value)
    if not _close(coefficient, math.sqrt(2 / math.pi)):
        return False
    if len(factors) == 1:
        add = producer(factors[0], "Add")
        operands = add.inputs if add is not None else ()
        return any(operand is x for operand in operands) and any(
            _is_power(operand, x, 3, 0.044715) for operand in operands
        )
    if len(factors) != 2 or not any(factor is x for factor in factors):
        return False
    return any(_is_power(_one_plus(factor), x, 2, 0.044715) for factor in factors)


def _is_power(value: ir.Value | None, x: ir.Value, power: int, coefficient: float) -> bool:
    """Whether ``value`` is ``coefficient * x ** power``."""
    if value is None:
        return False
    found, factors = _product(value)
    counts: Counter[ir.Value] = Counter()
    for factor in factors:
        node = producer(factor, "Pow") if factor is not x else None
        exponent = scalar(node.inputs[1]) if node is not None else None
        if node is not None and exponent in (2, 3) and node.inputs[0] is not None:
            counts[node.inputs[0]] += int(exponent)
        else:
            counts[factor] += 1
    return counts == {x: power} and _close(found, coefficient)


def _one_plus(value: ir.Value | None) -> ir.Value | None:
    """``v`` if ``value`` is ``1 + v``."""
    node = producer(value, "Add")
    if node is None:
        return None
    first, second = node.inputs
    if scalar(first) == 1:
        return second
    return first if scalar(second) == 1 else None


def _product(value: ir.Value) -> tuple[float, list[ir.Value]]:
    """A value as a number times other values.

    Products inside are opened as long as nothing else uses them. ``x`` itself,
    which a GELU uses more than once, is therefore never taken apart.
    """
    coefficient, factors, pending = 1.0, [], [value]
    while pending:
        item = pending.pop()
        number = scalar(item)
        node = producer(item, "Mul", "Div")
        if number is not None:
            coefficient *= number
        elif node is None or (item is not value and only_consumer(item) is None):
            factors.append(item)
        elif is_op(node, "Mul"):
            pending.extend(operand for operand in node.inputs if operand is not None)
        else:
            divisor = scalar(node.inputs[1])
            if not divisor or node.inputs[0] is None:
                factors.append(item)
            else:
                coefficient /= divisor
                pending.append(node.inputs[0])
    return coefficient, factors


def _close(found: float, expected: float) -> bool:
    return math.isclose(found, expected, rel_tol=TOLERANCE)
