"""Writes a placement of quantization into a graph: the other half of ``static-qdq``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from converters import quantize
from converters.calibration.ranges import activation_range
from converters.calibration.statistics import Statistics
from converters.passes.graph_tools import Array, Editor, constant
from converters.passes.qdq_placement import (
    Placement,
    channel_axis,
    clamp_bounds,
    clamped_input,
    hard_sigmoid,
    is_saturation,
)
from converters.quantize import Affine

if TYPE_CHECKING:
    from converters.passes.static_qdq import StaticQdqOptions

# A bias is int32 in steps of input scale times weight scale; half is left for the sum it joins.
BIAS_LIMIT = 2.0**30


class Writer:
    """Writes the nodes of one placement into one graph."""

    def __init__(
        self, editor: Editor, options: StaticQdqOptions, statistics: Statistics, plan: Placement
    ) -> None:
        self._editor = editor
        self._options = options
        self._statistics = statistics
        self._plan = plan
        self._affine: dict[ir.Value, Affine] = {}
        self._steps: dict[tuple[ir.Value, float], ir.Value] = {}
        self._zero_points: dict[object, ir.Value] = {}
        self._codes: dict[ir.Value, ir.Value] = {}
        self._weights: dict[tuple[ir.Value, int, bytes], ir.Value] = {}

    def write(self) -> None:
        """Quantizes weights, then activations, then drops what became unused."""
        for node in self._plan.layers:
            self._quantize_layer(node)
        for value in self._plan.everywhere:
            if value in self._plan.multiples:
                self._share_codes(value)
            else:
                self._quantize_everywhere(value)
        for value in self._plan.beside:
            self._quantize_beside(value)
        self._editor.prune()

    def _quantize_everywhere(self, value: ir.Value) -> None:
        """Makes every user of a value read its quantized form."""
        if value in self._plan.hard_sigmoids:
            source, factor = self._shifted(value)
        else:
            source, factor = self._unclamped(value), 1.0
        codes = self._node("QuantizeLinear", value, value, self._scale_of(value, factor))
        self._codes[value] = codes.outputs[0]
        after = self._node("DequantizeLinear", codes.outputs[0], value, self._scale_of(value))
        self._editor.redirect(value, after.outputs[0])
        codes.replace_input_with(0, source)

    def _share_codes(self, value: ir.Value) -> None:
        """A positive multiple of a quantized value has its codes, at another scale."""
        source, _ = self._plan.multiples[value]
        codes = self._codes[value] = self._codes[source]
        after = self._node("DequantizeLinear", codes, value, self._scale_of(value))
        self._editor.redirect(value, after.outputs[0])

    def _quantize_beside(self, value: ir.Value) -> None:
        """Makes the users that were chosen read the quantized form of a value."""
        users = [use for use in value.uses() if use in self._plan.reads]
        number = constant(value)
        if number is not None:
            after = self._exact(value, number)
        else:
            codes = self._node("QuantizeLinear", value, value, self._scale_of(value))
            after = self._node(
                "DequantizeLinear", codes.outputs[0], value, self._scale_of(value)
            ).outputs[0]
        for node, index in users:
            node.replace_input_with(index, after)
        if number is None and len(value.uses()) == 1 and not value.is_graph_output():
            codes.replace_input_with(0, self._unclamped(value))

    def _node(
        self,
        op_type: str,
        source: ir.Value,
        value: ir.Value,
        scale: tuple[ir.Value, ir.Value],
    ) -> ir.Node:
        """Inserts one half of a pair for ``value`` right after ``source``."""
        name = self._editor.fresh(f"{value.name}_{op_type}")
        dtype = scale[1].dtype if op_type == "QuantizeLinear" else ir.DataType.FLOAT
        assert dtype is not None
        output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
        node = ir.node(op_type, [source, *scale], outputs=[output], name=name)
        self._editor.insert_after(source, [node])
        return node

    def _unclamped(self, value: ir.Value) -> ir.Value:
        """What to quantize instead of ``value``: codes saturate where a clamp would."""
        clamp = value.producer()
        bounds = clamp_bounds(clamp) if clamp is not None else None
        if clamp is None or bounds is None:
            return value
        return clamped_input(clamp) if is_saturation(bounds, self._parameters(value)) else value

    def _shifted(self, value: ir.Value) -> tuple[ir.Value, float]:
        """The sum whose saturated codes are those of a ``HardSigmoid``, and its relative scale.

        ``clip(a x + b, 0, 1) = a clip(x + b / a, 0, 1 / a)``: an addition for which there is
        an integer kernel, quantized to [0, 1 / a], is ``HardSigmoid`` at ``a`` times its scale.
        """
        node = value.producer()
        slope_and_offset = hard_sigmoid(node) if node is not None else None
        assert node is not None, "placements name outputs of HardSigmoid"
        assert slope_and_offset is not None, "placements name outputs of HardSigmoid"
        slope, offset = slope_and_offset
        shift = self._exact(value, np.array(offset / slope, np.float32))
        total = self._editor.node(
            "Add", [node.inputs[0], shift], before=node, name=f"{value.name}_shifted", like=value
        )
        return total, 1 / slope

    def _exact(self, value: ir.Value, number: Array) -> ir.Value:
        """A constant of one element in quantized form, without error: one step of its own size."""
        dtype = self._options.activation
        lowest = np.iinfo(dtype).min
        sign = int(np.sign(number.reshape(())))
        zero_point = lowest if sign >= 0 else lowest + 1
        step = np.abs(number.reshape(())) if sign else 1
        name = f"{value.name}_exact"
        inputs = [
            self._editor.initializer(name, np.full(number.shape, zero_point + sign, dtype)),
            self._editor.initializer(f"{name}_scale", np.asarray(step, np.float32)),
            self._zero_point(np.array(zero_point, dtype)),
        ]
        first = self._editor.graph[0]  # it depends on nothing, and anything may use it
        return self._editor.node(
            "DequantizeLinear", inputs, before=first, name=f"{name}_dequantized"
        )

    def _parameters(self, value: ir.Value) -> Affine:
        """Scale and zero point of an activation, its own or those of what it comes from."""
        value = self._plan.same_scale.get(value, value)
        if value not in self._affine:
            self._affine[value] = self._compute(value)
        return self._affine[value]

    def _compute(self, value: ir.Value) -> Affine:
        options = self._options
        if value in self._plan.multiples:
            source, factor = self._plan.multiples[value]
            base = self._parameters(source)
            return Affine(np.float32(base.scale * factor), base.zero_point, base.dtype)
        if value in self._plan.hard_sigmoids:
            return quantize.affine(0, 1, options.activation)
        seen = self._statistics.get(value.name)
        assert seen is not None, "placements only name calibrated values"
        low, high = activation_range(seen, options.method, options.percentile)
        return quantize.affine(low, high, options.activation, options.symmetric_activation)

    def _scale_of(self, value: ir.Value, factor: float = 1.0) -> tuple[ir.Value, ir.Value]:
        """Initializers with scale, multiplied by ``factor``, and zero point of an activation."""
        value = self._plan.same_scale.get(value, value)
        parameters = self._parameters(value)
        if (value, factor) not in self._steps:
            step = np.asarray(parameters.scale * np.float32(factor))
            self._steps[value, factor] = self._editor.initializer(f"{value.name}_scale", step)
        zero_point = self._zero_point(np.array(parameters.zero_point, parameters.dtype))
        return self._steps[value, factor], zero_point

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
        key = weight, axis, quantized.scale.tobytes()
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
        inputs = [editor.initializer(name, codes), editor.initializer(f"{name}_scale", scale)]
        if node.op_type != "Conv" and codes.dtype == np.int8:
            # ONNX Runtime fuses MatMul and Gemm only where the zero points are spelt out.
            inputs.append(self._zero_point(np.zeros(scale.shape, np.int8)))
        return editor.node(
            "DequantizeLinear", inputs, before=node, name=f"{name}_dequantized", axis=axis
        )

    def _zero_point(self, array: Array) -> ir.Value:
        """An initializer with zero points; equal ones are stored once."""
        key = array.dtype, array.shape, array.tobytes()
        if key not in self._zero_points:
            self._zero_points[key] = self._editor.initializer("zero_point", array)
        return self._zero_points[key]


def _int32_bias(node: ir.Node, channels: int) -> quantize.Float | None:
    """The bias of a layer, if it is one constant per channel that is added as it is."""
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is None or bias.dtype != np.float32 or bias.shape != (channels,):
        return None
    if any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return None
    return bias
