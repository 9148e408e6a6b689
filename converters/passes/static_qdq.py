"""Static int8: weights and activations quantized by calibrated ranges, in QDQ form.

The graph stays standard ONNX: ``QuantizeLinear`` / ``DequantizeLinear`` pairs
mark what an engine may compute in integers. :mod:`converters.passes.qdq_placement`
decides where; this module computes scales and writes the nodes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir

from converters import quantize
from converters.calibration.ranges import Method, activation_range
from converters.calibration.statistics import Statistics
from converters.passes.base import GraphPass, Options
from converters.passes.graph_tools import Array, Editor, constant, is_op
from converters.passes.qdq_placement import (
    CLAMPS,
    LAYERS,
    Placement,
    after_clamp,
    channel_axis,
    is_saturation,
    place_for_onnxruntime,
    place_for_tensorrt,
    weight_of,
)
from converters.quantize import Affine

PER_CHANNEL_OPSET = 13
# A bias is int32 in steps of input scale times weight scale; half is left for the sum it joins.
BIAS_LIMIT = 2.0**30
# Attention masks and the like: no 8-bit scale represents them beside ordinary values.
LARGEST = 1e30


class StaticQdqOptions(Options, frozen=True, kw_only=True):
    """Options of ``static-qdq``.

    Attributes:
        activation: Type of quantized activations.
        weight: Type of quantized weights.
        symmetric_activation: Zero is the middle code, and quantization stands where
            TensorRT wants it; otherwise where ONNX Runtime fuses it.
        float_bias: Leave biases in float (TensorRT); otherwise int32.
        method: How ranges of activations are chosen.
        percentile: Share of values to keep in percent, for that method.
        reduce_range: Use 7-bit weights, for x86 without VNNI, whose 16-bit sums saturate.
        clip: Choose each weight scale for the least squared error.
        op_types: Layers to quantize.
        exclude: Names of nodes to leave in float.
    """

    activation: quantize.IntType = "uint8"
    weight: Literal["int8"] = "int8"
    symmetric_activation: bool = False
    float_bias: bool = False
    method: Method = "minmax"
    percentile: float = 99.99
    reduce_range: bool = False
    clip: bool = False
    op_types: tuple[Literal["Conv", "Gemm", "MatMul"], ...] = ("Conv", "Gemm", "MatMul")
    exclude: tuple[str, ...] = ()


class StaticQdq(GraphPass):
    """Quantizes convolutions and dense layers, and what lies between them."""

    name = "static-qdq"
    options_type = StaticQdqOptions
    is_rewrite = False
    needs_statistics = True
    in_subgraphs = False  # values there are not calibrated

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Quantizes every layer of the main graph whose input was calibrated."""
        nodes = list(graph)
        known = self._calibrated(nodes)
        layers = [n for n in nodes if is_op(n, *LAYERS) and self._is_eligible(n, known)]
        if layers and model.opset_imports.get("", 0) < PER_CHANNEL_OPSET:
            self.context.notes.append("static int8 needs opset 13 for scales per channel")
            layers = []
        if layers:
            plan = self._place(nodes, layers, known)
            _Writer(Editor(graph, model), self.options, self.context.statistics, plan).write()
        return len(layers)

    def _calibrated(self, nodes: list[ir.Node]) -> set[ir.Value]:
        """Activations with a usable range."""
        # Looking is not using: only what is quantized counts as used statistics.
        seen = self.context.statistics.tensors
        usable = {name for name, tensor in seen.items() if tensor.absmax < LARGEST}
        values = {value for node in nodes for value in (*node.inputs, *node.outputs)}
        return {value for value in values if value is not None and value.name in usable}

    def _place(
        self, nodes: list[ir.Node], layers: list[ir.Node], known: set[ir.Value]
    ) -> Placement:
        if self.options.symmetric_activation:
            return place_for_tensorrt(nodes, layers, known)
        excluded = {node for node in nodes if node.name in self.options.exclude}
        return place_for_onnxruntime(nodes, layers, known, excluded)

    def _is_eligible(self, node: ir.Node, known: set[ir.Value]) -> bool:
        reason = None
        weight = weight_of(node)
        if node.op_type not in self.options.op_types:
            reason = f"the recipe quantizes {' and '.join(self.options.op_types)} only"
        elif node.name in self.options.exclude:
            reason = "excluded by the recipe"
        elif isinstance(weight, str):
            reason = weight
        elif node.inputs[0] not in known:
            reason = "its input was not calibrated"
        elif is_op(node, "Conv") and after_clamp(node) not in known:
            reason = "its output was not calibrated"
        if reason:
            self.context.skip(node, reason)
        return reason is None


class _Writer:
    """Writes the nodes of one placement into one graph."""

    def __init__(
        self, editor: Editor, options: StaticQdqOptions, statistics: Statistics, plan: Placement
    ) -> None:
        self._editor = editor
        self._options = options
        self._statistics = statistics
        self._plan = plan
        self._affine: dict[ir.Value, Affine] = {}
        self._scales: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        self._weights: dict[tuple[ir.Value, bytes], ir.Value] = {}

    def write(self) -> None:
        """Quantizes weights, then activations, then drops what became unused."""
        for node in self._plan.layers:
            self._quantize_layer(node)
        for value in self._plan.everywhere:
            quantized, dequantized = self._pair(value)
            self._editor.redirect(value, dequantized)
            quantized.replace_input_with(0, self._unclamped(value))
        for value in self._plan.beside:
            quantized, dequantized = self._pair(value)
            for node, index in value.uses():
                if (node, index) in self._plan.reads:
                    node.replace_input_with(index, dequantized)
            if value.uses() == ((quantized, 0),) and not value.is_graph_output():
                quantized.replace_input_with(0, self._unclamped(value))
        self._editor.prune()

    def _pair(self, value: ir.Value) -> tuple[ir.Node, ir.Value]:
        """Inserts ``QuantizeLinear`` and ``DequantizeLinear`` right after ``value``."""
        scale, zero_point = self._scale_of(value)
        nodes, source = [], value
        for op_type, dtype in (
            ("QuantizeLinear", zero_point.dtype),
            ("DequantizeLinear", ir.DataType.FLOAT),
        ):
            name = self._editor.fresh(f"{value.name}_{op_type}")
            assert dtype is not None
            output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
            nodes.append(ir.node(op_type, [source, scale, zero_point], outputs=[output], name=name))
            source = output
        self._editor.insert_after(value, nodes)
        return nodes[0], source

    def _unclamped(self, value: ir.Value) -> ir.Value:
        """What to quantize instead of ``value``: codes saturate where a clamp would."""
        clamp = value.producer()
        if clamp is None or not is_op(clamp, *CLAMPS):
            return value
        before = clamp.inputs[0]
        assert before is not None
        return before if is_saturation(clamp, self._parameters(value)) else value

    def _parameters(self, value: ir.Value) -> Affine:
        """Scale and zero point of an activation: its own, or those of what it is moved from."""
        value = self._plan.same_scale.get(value, value)
        if value not in self._affine:
            seen, options = self._statistics.get(value.name), self._options
            assert seen is not None, "placements only name calibrated values"
            low, high = activation_range(seen, options.method, options.percentile)
            self._affine[value] = quantize.affine(
                low, high, options.activation, options.symmetric_activation
            )
        return self._affine[value]

    def _scale_of(self, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Initializers with scale and zero point of an activation."""
        value = self._plan.same_scale.get(value, value)
        if value not in self._scales:
            parameters = self._parameters(value)
            zero_point = np.array(parameters.zero_point, parameters.dtype)
            self._scales[value] = (
                self._editor.initializer(f"{value.name}_scale", np.asarray(parameters.scale)),
                self._editor.initializer(f"{value.name}_zero_point", zero_point),
            )
        return self._scales[value]

    def _quantize_layer(self, node: ir.Node) -> None:
        data, weight = node.inputs[:2]
        assert data is not None and weight is not None
        array, axis = constant(weight), channel_axis(node)
        assert array is not None
        step = self._parameters(data).scale
        bias = None if self._options.float_bias else _int32_bias(node, array.shape[axis])
        quantized = quantize.symmetric(
            array,
            axis,
            limit=63 if self._options.reduce_range else 127,
            clip=self._options.clip,
            floor=None if bias is None else np.abs(bias / (step * np.float32(BIAS_LIMIT))),
        )
        key = weight, quantized.scale.tobytes()
        if key not in self._weights:
            self._weights[key] = self._constant(
                f"{weight.name}_int8", quantized.values, quantized.scale, axis, node
            )
        node.replace_input_with(1, self._weights[key])
        if bias is not None:
            steps = step * quantized.scale
            codes = np.rint(bias.astype(np.float64) / steps).astype(np.int32)
            name = f"{node.name or weight.name}_bias_int32"
            node.replace_input_with(2, self._constant(name, codes, steps, 0, node))

    def _constant(
        self, name: str, codes: Array, scale: quantize.Float, axis: int, node: ir.Node
    ) -> ir.Value:
        """A ``DequantizeLinear`` of new initializers, before ``node``."""
        editor = self._editor
        inputs = [
            editor.initializer(name, codes),
            editor.initializer(f"{name}_scale", scale),
            editor.initializer(f"{name}_zero_point", np.zeros(scale.shape, codes.dtype)),
        ]
        return editor.node(
            "DequantizeLinear", inputs, before=node, name=f"{name}_dequantized", axis=axis
        )


def _int32_bias(node: ir.Node, channels: int) -> quantize.Float | None:
    """The bias of a layer, if it is one constant per channel that is added as it is."""
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is None or bias.dtype != np.float32 or bias.shape != (channels,):
        return None
    if any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return None
    return bias
