"""Layer normalization written out as primitive operators becomes ``LayerNormalization``.

Recognised: ``(x - mean(x)) / sqrt(mean((x - mean(x))²) + epsilon) * scale + bias``
over the last axes, with the square as ``Pow`` or ``Mul``, the division as
``Div`` or multiplication by ``Reciprocal``, and ``scale`` and ``bias`` constant or
absent. One kernel instead of nine, and the one place where outlier migration and
the residual rewrite can take hold. The operator is standard from opset 17 on;
below that the graph is left alone.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from converters.passes.base import GraphPass
from converters.passes.graph_tools import (
    Array,
    Editor,
    constant,
    integers,
    is_op,
    only_consumer,
    other_input,
    producer,
    same_rank,
    scalar,
)

OPSET = 17


class FuseLayerNorm(GraphPass):
    """Replaces written-out layer normalization by one node."""

    name = "fuse-layer-norm"

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Rewrites one graph."""
        if model.opset_imports.get("", 0) < OPSET:
            return 0
        editor = Editor(graph, model)
        changes = 0
        for node in graph:
            if is_op(node, "Div", "Mul"):
                changes += _fuse(node, editor)
        if changes:
            editor.prune()
        return changes


def _fuse(node: ir.Node, editor: Editor) -> bool:
    matched = _normalized(node)
    if matched is None:
        return False
    x, count, epsilon = matched
    size = _last_sizes(x, count)
    if size is None or not same_rank(x, node.outputs[0]):
        return False
    scale, scaled = _operand(node.outputs[0], "Mul", size)
    bias, result = _operand(scaled, "Add", size)
    name = node.name or "layer_norm"
    one = np.ones(size, dtype=(x.dtype or ir.DataType.FLOAT).numpy())
    inputs = [x, editor.initializer(f"{name}_scale", one if scale is None else scale)]
    if bias is not None:
        inputs.append(editor.initializer(f"{name}_bias", bias))
    last = result.producer()
    assert last is not None
    fused = editor.node(
        "LayerNormalization", inputs, before=last, name=name, axis=-count, epsilon=epsilon
    )
    editor.redirect(result, fused)
    return True


def _normalized(node: ir.Node) -> tuple[ir.Value, int, float] | None:
    """What ``node`` normalizes, over how many last axes, and epsilon."""
    numerator, denominator = node.inputs
    if is_op(node, "Mul"):
        reciprocal = producer(denominator, "Reciprocal") or producer(numerator, "Reciprocal")
        if reciprocal is None:
            return None
        numerator = other_input(node, reciprocal.outputs[0])
        denominator = reciprocal.inputs[0]
    centred = _centred(numerator)
    variance = _offset(_root(denominator))
    if centred is None or variance is None:
        return None
    x, count = centred
    value, epsilon = variance
    reduced = _mean(value)
    if reduced is None or reduced[1] != count:
        return None
    return (x, count, epsilon) if _centred(_squared(reduced[0])) == (x, count) else None


def _centred(value: ir.Value | None) -> tuple[ir.Value, int] | None:
    """``x`` and the number of axes if ``value`` is ``x - mean(x)``."""
    sub = producer(value, "Sub")
    mean = _mean(sub.inputs[1]) if sub is not None else None
    return mean if sub is not None and mean is not None and mean[0] is sub.inputs[0] else None


def _mean(value: ir.Value | None) -> tuple[ir.Value, int] | None:
    """``x`` and the number of axes if ``value`` is the mean of ``x`` over its last axes."""
    node = producer(value, "ReduceMean")
    if node is None or node.attributes.get_int("keepdims", 1) != 1:
        return None
    x, axes = node.inputs[0], integers(node, "axes", 1)
    if x is None or not axes:
        return None
    rank = None if x.shape is None else len(x.shape)
    if any(axis >= 0 for axis in axes) and rank is None:
        return None
    from_end = {axis if axis < 0 else axis - (rank or 0) for axis in axes}
    return (x, len(axes)) if from_end == set(range(-len(axes), 0)) else None


def _squared(value: ir.Value | None) -> ir.Value | None:
    node = producer(value, "Pow", "Mul")
    if node is None:
        return None
    base, other = node.inputs
    squared = scalar(other) == 2 if is_op(node, "Pow") else base is other
    return base if squared else None


def _root(value: ir.Value | None) -> ir.Value | None:
    node = producer(value, "Sqrt", "Pow")
    if node is None or (is_op(node, "Pow") and scalar(node.inputs[1]) != 0.5):
        return None
    return node.inputs[0]


def _offset(value: ir.Value | None) -> tuple[ir.Value, float] | None:
    """The two operands of an ``Add`` of a number."""
    node = producer(value, "Add")
    for operand in node.inputs if node is not None else ():
        number = scalar(operand)
        rest = other_input(node, operand) if node is not None else None
        if number is not None and rest is not None:
            return rest, number
    return None


def _last_sizes(x: ir.Value, count: int) -> tuple[int, ...] | None:
    """The last ``count`` dimensions of ``x`` if all are known."""
    if x.shape is None or len(x.shape) < count:
        return None
    sizes = [dim for dim in x.shape[len(x.shape) - count :] if isinstance(dim, int)]
    return tuple(sizes) if len(sizes) == count else None


def _operand(value: ir.Value, op_type: str, size: tuple[int, ...]) -> tuple[Array | None, ir.Value]:
    """A constant that the only consumer of ``value`` applies over the normalized axes.

    Returns:
        The constant with shape ``size`` and the consumer's output; or ``None`` and ``value``.
    """
    node = only_consumer(value)
    if node is None or not is_op(node, op_type) or node.graph is not value.graph:
        return None, value
    array = constant(other_input(node, value))
    # Leading ones change nothing; any other leading axis is not a scale of these axes.
    if array is None or array.size not in (1, math.prod(size)):
        return None, value
    if array.size > 1 and array.shape[max(0, array.ndim - len(size)) :] != size:
        return None, value
    if array.ndim > len(value.shape or ()):
        return None, value
    full = np.broadcast_to(array.reshape(array.shape[-len(size) :] if array.size > 1 else ()), size)
    return full, node.outputs[0]
