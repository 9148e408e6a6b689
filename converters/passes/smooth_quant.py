"""Migrates activation outliers into weights, so that one scale per tensor suffices.

Xiao et al., "SmoothQuant" (2022): for a dense layer X W, dividing column j of X
by s_j and multiplying row j of W by s_j changes nothing in real arithmetic, but
evens out the channels of X, which share one scale, against the rows of W. The
division is folded into what computes X where that is exact, else one ``Mul``.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converters.calibration.statistics import TensorStatistics
from converters.passes.base import GraphPass, Options
from converters.passes.dense import Dense, layer_of, match
from converters.passes.graph_tools import (
    Editor,
    constant,
    is_op,
    only_consumer,
    producer,
    static_shape,
)
from converters.quantize import Float

# Channels that calibration hardly saw count as this share of the largest one.
SMALLEST_SHARE = 1e-4


class SmoothQuantOptions(Options, frozen=True, kw_only=True):
    """Options of ``smooth-quant``.

    Attributes:
        alpha: How much of the activations' unevenness moves into the weights: 0 none, 1 all.
        exclude: Names of dense layers whose input stays as it is.
    """

    alpha: float = 0.8
    exclude: tuple[str, ...] = ()


class SmoothQuant(GraphPass):
    """Evens out the inputs of dense layers, by what calibration saw of them."""

    name = "smooth-quant"
    options_type = SmoothQuantOptions
    is_rewrite = False
    needs_statistics = True
    in_subgraphs = False  # values there are not calibrated

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Smooths every activation that dense layers share as their input."""
        editor = Editor(graph, model)
        # Consumers first: folding into the layer before changes that layer's weight.
        groups = list(reversed(self._groups(graph)))
        smoothed = sum(self._smooth(group, editor) for group in groups)
        if smoothed:
            editor.prune()
        return smoothed

    def _groups(self, graph: ir.Graph) -> list[list[ir.Node]]:
        """Dense layers by the activation they read, in topological order."""
        groups: dict[ir.Value, list[ir.Node]] = {}
        for node in graph:
            if is_op(node, "MatMul", "Gemm") and node.name not in self.options.exclude:
                layer = match(node)
                if isinstance(layer, Dense):
                    groups.setdefault(layer.data, []).append(node)
        return list(groups.values())

    def _smooth(self, nodes: list[ir.Node], editor: Editor) -> bool:
        # Read again: smoothing a later activation may have replaced a weight or bias.
        layers = [layer for node in nodes if isinstance(layer := match(node), Dense)]
        if any(len(layer.weight.uses()) > 1 for layer in layers):
            return False  # a weight that layers share would have to be stored once for each
        data = layers[0].data
        seen = self.context.statistics.get(data.name)
        if seen is None or seen.channel_absmax is None:
            return False
        rows = np.concatenate([np.abs(layer.array()) for layer in layers], axis=1).max(axis=1)
        if seen.channel_absmax.shape != rows.shape:
            return False
        scale = smoothing_scale(seen.channel_absmax, rows, self.options.alpha)
        if scale is None:
            return False
        name = f"{data.name}_smooth"
        if _fold(data, nodes, scale, editor):
            smooth = data
            data.name = editor.fresh(name)  # no longer the value that was calibrated
        else:
            factor = editor.initializer(f"{name}_scale", 1 / scale)
            smooth = editor.node("Mul", [data, factor], before=nodes[0], name=name, like=data)
            for node in nodes:
                node.replace_input_with(0, smooth)
        self.context.statistics = self.context.statistics.beside(
            {str(smooth.name): smoothed_statistics(seen, scale)}
        )
        for layer in layers:
            _scale_weight(layer, scale[:, None], editor)
        return True


def smoothed_statistics(seen: TensorStatistics, scale: Float) -> TensorStatistics:
    """What calibration would have seen of a smoothed activation, as far as a range goes."""
    assert seen.channel_absmax is not None
    channels = seen.channel_absmax / scale
    reach = float(channels.max())
    return TensorStatistics(
        -reach if seen.low < 0 else 0.0, reach if seen.high > 0 else 0.0, None, channels
    )


def smoothing_scale(activations: Float, weights: Float, alpha: float) -> Float | None:
    """The factor per channel, with geometric mean 1.

    Args:
        activations: Largest magnitude per channel, [K].
        weights: Largest magnitude per row, [K].
        alpha: Migration strength.

    Returns:
        Scales [K]; ``None`` where the activations or the weights are all zero.
    """
    if activations.max() <= 0 or weights.max() <= 0:
        return None
    x = np.maximum(activations, SMALLEST_SHARE * activations.max()).astype(np.float64)
    w = np.maximum(weights, SMALLEST_SHARE * weights.max()).astype(np.float64)
    logarithm = alpha * np.log(x) - (1 - alpha) * np.log(w)
    scale: Float = np.exp(logarithm - logarithm.mean()).astype(np.float32)
    return scale


def _fold(data: ir.Value, nodes: list[ir.Node], scale: Float, editor: Editor) -> bool:
    """Divides what computes ``data`` by ``scale``, if nothing else depends on it."""
    users = {node for node, _ in data.uses()}
    if users != set(nodes) or data.is_graph_output():
        return False
    norm = producer(data, "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
    if norm is not None:
        return _fold_into_norm(norm, scale, editor)
    source = _linear_source(data)
    if source is None or len(source.weight.uses()) > 1:
        return False
    if source.array().shape[1] != len(scale):
        return False
    _scale_weight(source, np.float32(1) / scale, editor)
    if source.bias is not None:
        _set_bias(source, source.bias / scale, editor)
    return True


def _fold_into_norm(norm: ir.Node, scale: Float, editor: Editor) -> bool:
    parts = [constant(value) for value in norm.inputs[1:] if value is not None]
    if any(part is None or part.shape != scale.shape for part in parts):
        return False
    for index, part in enumerate(parts, start=1):
        assert part is not None
        value = norm.inputs[index]
        assert value is not None
        norm.replace_input_with(index, editor.initializer(f"{value.name}_smooth", part / scale))
    return True


def _linear_source(data: ir.Value) -> Dense | None:
    """The dense layer whose columns become the channels of ``data`` one to one.

    Between them may stand ``Relu``, which commutes with positive factors, and
    attention: ``probabilities @ values``, which mixes positions and not channels.
    """
    relu = producer(data, "Relu")
    if relu is not None:
        return layer_of(relu.inputs[0]) if _has_one_user(relu.inputs[0]) else None
    return layer_of(data) or _attention_values(data)


def _has_one_user(value: ir.Value | None) -> bool:
    return value is not None and only_consumer(value) is not None


def _attention_values(data: ir.Value) -> Dense | None:
    """Traces ``Reshape(Transpose(P @ Transpose(Reshape(values))))`` back to the values' layer."""
    merge = producer(data, "Reshape")
    swap = producer(merge.inputs[0], "Transpose") if merge else None
    product = producer(swap.inputs[0], "MatMul") if swap else None
    split = producer(product.inputs[1], "Transpose") if product else None
    heads = producer(split.inputs[0], "Reshape") if split else None
    if not (merge and swap and product and split and heads):
        return None
    inside = [swap.outputs[0], product.outputs[0], *split.outputs, *heads.outputs, heads.inputs[0]]
    if not all(_has_one_user(value) for value in inside):
        return None
    perms = [tuple(node.attributes.get_ints("perm", ())) for node in (swap, split)]
    if perms != [(0, 2, 1, 3)] * 2:
        return None
    layer = layer_of(heads.inputs[0])
    if layer is None:
        return None
    sizes, merged = _last_sizes(heads, 2), _last_sizes(merge, 1)
    if sizes is None or merged != (sizes[0] * sizes[1],):
        return None
    return layer if layer.array().shape[1] == merged[0] else None


def _last_sizes(reshape: ir.Node, count: int) -> tuple[int, ...] | None:
    """The last dimensions of a ``Reshape``'s result, where they are known and positive."""
    target = constant(reshape.inputs[1])
    if target is not None:
        sizes = tuple(int(size) for size in target[-count:])
        if len(sizes) == count and all(size > 0 for size in sizes):
            return sizes
    shape = static_shape(reshape.outputs[0])
    return shape[-count:] if shape is not None else None


def _scale_weight(layer: Dense, factor: Float, editor: Editor) -> None:
    """Multiplies the weight [K, N] by ``factor``, [K, 1] or [N], in a new initializer."""
    stored = constant(layer.weight)
    assert stored is not None
    scaled = (stored.T * factor).T if layer.transposed else stored * factor
    layer.node.replace_input_with(1, editor.initializer(f"{layer.weight.name}_smooth", scaled))


def _set_bias(layer: Dense, bias: Float, editor: Editor) -> None:
    name = f"{layer.node.name or layer.weight.name}_bias_smooth"
    if is_op(layer.node, "Gemm"):
        layer.node.replace_input_with(2, editor.initializer(name, bias))
        layer.node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
        return
    add = layer.output.producer()
    assert add is not None
    index = next(i for i, value in enumerate(add.inputs) if constant(value) is not None)
    add.replace_input_with(index, editor.initializer(name, bias))
