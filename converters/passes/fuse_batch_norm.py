"""Batch normalization folded into the weights of the layer before it.

At inference ``BatchNormalization`` is ``x * a + b`` per channel, with
``a = scale / sqrt(var + epsilon)`` and ``b = bias - mean * a``, so it disappears
into the weights and bias of a ``Conv``, ``ConvTranspose``, ``Gemm`` or constant
``MatMul`` that only it reads.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converters.passes.base import GraphPass
from converters.passes.graph_tools import (
    Array,
    Editor,
    constant,
    is_op,
    only_consumer,
    producer,
)

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class FuseBatchNorm(GraphPass):
    """Removes inference batch normalization after a layer with constant weights."""

    name = "fuse-batch-norm"

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Rewrites one graph."""
        editor = Editor(graph, model)
        changes = 0
        for node in graph:
            if is_op(node, "BatchNormalization"):
                changes += _fold(node, editor)
        if changes:
            editor.prune()
        return changes


def _fold(norm: ir.Node, editor: Editor) -> bool:
    affine, found = _affine(norm), _layer_before(norm)
    if affine is None or found is None:
        return False
    factor, offset = affine
    layer, added = found
    weight = constant(layer.inputs[1])
    scaled = _scaled(layer, weight, factor) if weight is not None else None
    biases = [_channels(value, rank, factor.size) for value, rank in _biases(layer, added)]
    if weight is None or scaled is None or any(bias is None for bias in biases):
        return False
    beta = layer.attributes.get_float("beta", 1.0)
    own, after = biases
    shift = (own * beta + after) * factor + offset  # type: ignore[operator]
    name = layer.name or layer.op_type
    inputs = [layer.inputs[0], editor.initializer(f"{name}_weight", scaled.astype(weight.dtype))]
    bias = editor.initializer(f"{name}_bias", shift.astype(weight.dtype))
    if is_op(layer, "MatMul"):
        product = editor.node("MatMul", inputs, before=norm, name=name)
        fused = editor.node("Add", [product, bias], before=norm, name=f"{name}_add")
    else:
        kept = {key: value.value for key, value in layer.attributes.items() if key != "beta"}
        fused = editor.node(layer.op_type, [*inputs, bias], before=norm, name=name, **kept)
    editor.redirect(norm.outputs[0], fused)
    return True


def _affine(norm: ir.Node) -> tuple[Array, Array] | None:
    """Factor and offset per channel of an inference batch normalization, in float64.

    ``None`` in training mode (more than one output in use, or opset 14's
    attribute) and where a parameter is not constant.
    """
    if norm.attributes.get_int("training_mode", 0) or not norm.attributes.get_int("spatial", 1):
        return None
    if any(extra.uses() or extra.is_graph_output() for extra in norm.outputs[1:]):
        return None
    parameters = [constant(value) for value in norm.inputs[1:5]]
    if len(parameters) != 4 or any(array is None for array in parameters):
        return None
    scale, bias, mean, variance = (np.asarray(array, dtype=np.float64) for array in parameters)
    factor = scale / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))
    return factor, bias - mean * factor


def _layer_before(norm: ir.Node) -> tuple[ir.Node, ir.Value | None] | None:
    """The layer that only ``norm`` reads, and what an ``Add`` between them adds."""
    source, added = norm.inputs[0], None
    add = producer(source, "Add")
    if source is not None and add is not None and only_consumer(source) is not None:
        operands = [value for value in add.inputs if value is not None]
        source, added = sorted(operands, key=lambda value: constant(value) is not None)
    layer = producer(source, *LAYERS)
    if (
        source is None
        or layer is None
        or layer.graph is not norm.graph
        or only_consumer(source) is None
    ):
        return None
    # A matrix product has its channels last, and so where they are normalized, in rank 2 only.
    if is_op(layer, "MatMul") and (source.shape is None or len(source.shape) != 2):
        return None
    return layer, added


def _biases(layer: ir.Node, added: ir.Value | None) -> list[tuple[ir.Value | None, int]]:
    """The layer's own bias and the one added after it, with the rank each is aligned to."""
    own = layer.inputs[2] if len(layer.inputs) > 2 else None
    weight = constant(layer.inputs[1])
    rank = 2 if weight is None else weight.ndim
    return [(own, 2), (added, rank)]


def _channels(bias: ir.Value | None, rank: int, channels: int) -> Array | None:
    """A bias per channel, axis 1 of ``rank`` axes; zero where there is none.

    Returns:
        Float64 [channels] or a scalar; ``None`` if the bias is not constant or varies
        along another axis.
    """
    if bias is None:
        return np.zeros(())
    array = constant(bias)
    if array is None or array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if array.size == 1 or (shape[1] == channels and array.size == channels):
        return np.asarray(array.reshape(-1), dtype=np.float64)
    return None


def _scaled(layer: ir.Node, weight: Array, factor: Array) -> Array | None:
    """The weight with each output channel multiplied by its factor, or ``None`` if it cannot be."""
    attributes = layer.attributes
    if is_op(layer, "ConvTranspose"):
        # [in, out / groups, …]: input channels of group g make output channels of group g.
        groups = attributes.get_int("group", 1)
        grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        per_group = factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
        return (grouped * per_group).reshape(weight.shape)
    axis = 0
    if is_op(layer, "Gemm"):
        axis = 0 if attributes.get_int("transB", 0) else 1
    elif is_op(layer, "MatMul"):
        axis = 1
        if weight.ndim != 2:
            return None
    if weight.shape[axis] != factor.size:
        return None
    return weight * factor.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
