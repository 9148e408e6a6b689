"""Static int8: weights and activations quantized by calibrated ranges, in QDQ form.

The graph stays standard ONNX: ``QuantizeLinear`` / ``DequantizeLinear`` pairs
mark what an engine may compute in integers. :mod:`converters.passes.qdq_placement`
decides where, :mod:`converters.passes.qdq_writer` computes scales and writes the nodes.
"""

from __future__ import annotations

from typing import Literal

import onnx_ir as ir

from converters.calibration.ranges import Method
from converters.passes.base import GraphPass, Options
from converters.passes.graph_tools import Editor, is_op
from converters.passes.qdq_normalise import normalise
from converters.passes.qdq_placement import (
    LAYERS,
    WEIGHTED,
    Placement,
    place_for_onnxruntime,
    result_of,
    weight_of,
)
from converters.passes.qdq_tensorrt import place_for_tensorrt
from converters.passes.qdq_writer import Writer
from converters.quantize import IntType

PER_CHANNEL_OPSET = 13
# Attention masks and the like: no 8-bit scale represents them beside ordinary values.
LARGEST = 1e30


class StaticQdqOptions(Options, frozen=True, kw_only=True):
    """Options of ``static-qdq``.

    Attributes:
        activation: Type of quantized activations.
        weight: Type of quantized weights.
        symmetric_activation: Zero is the middle code, and quantization stands where
            TensorRT wants it; otherwise where ONNX Runtime fuses it.
        dense_outputs: Quantize the outputs of dense layers too, where what reads them computes
            with integers: LiteRT has no integer kernel that gives float.
        float_bias: Leave biases in float (TensorRT); otherwise int32.
        method: How ranges of activations are chosen.
        percentile: Share of values to keep in percent, for that method.
        reduce_range: Use 7-bit weights, for x86 without VNNI, whose 16-bit sums saturate.
        clip: Choose each weight scale for the least squared error.
        op_types: Layers to quantize; by default those that the engine has integer kernels for.
        exclude: Names of nodes to leave in float.
    """

    activation: IntType = "uint8"
    weight: Literal["int8"] = "int8"
    symmetric_activation: bool = False
    dense_outputs: bool = False
    float_bias: bool = False
    method: Method = "minmax"
    percentile: float = 99.99
    reduce_range: bool = False
    clip: bool = False
    op_types: tuple[Literal["Conv", "ConvTranspose", "Gemm", "MatMul"], ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[str, ...]:
        """Operators to quantize."""
        return self.op_types or (WEIGHTED if self.symmetric_activation else LAYERS)


class StaticQdq(GraphPass):
    """Quantizes convolutions and dense layers, and what lies between them."""

    name = "static-qdq"
    options_type = StaticQdqOptions
    is_rewrite = False
    needs_statistics = True
    in_subgraphs = False  # values there are not calibrated

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Quantizes every layer of the main graph whose input was calibrated."""
        if not any(is_op(node, *WEIGHTED) for node in graph):
            return 0
        if model.opset_imports.get("", 0) < PER_CHANNEL_OPSET:
            self.context.notes.append("static int8 needs opset 13 for scales per channel")
            return 0
        editor, changes = Editor(graph, model), 0
        if not self.options.symmetric_activation and self._calibrated(list(graph)):
            changes = normalise(editor, dense_outputs=self.options.dense_outputs)
        nodes = list(graph)
        known = self._calibrated(nodes)
        layers = [n for n in nodes if is_op(n, *WEIGHTED) and self._is_eligible(n, known)]
        if layers:
            plan = self._place(nodes, layers, known)
            Writer(editor, self.options, self.context.statistics, plan).write()
        return changes + len(layers)

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
        return place_for_onnxruntime(
            nodes, layers, known, excluded, dense_outputs=self.options.dense_outputs
        )

    def _is_eligible(self, node: ir.Node, known: set[ir.Value]) -> bool:
        reason = None
        weight = weight_of(node)
        if node.op_type not in self.options.layers:
            reason = f"the recipe quantizes {' and '.join(self.options.layers)} only"
        elif node.name in self.options.exclude:
            reason = "excluded by the recipe"
        elif isinstance(weight, str):
            reason = weight
        elif node.inputs[0] not in known:
            reason = "its input was not calibrated"
        elif self._quantizes_output(node) and result_of(node) not in known:
            reason = "its output was not calibrated"
        if reason:
            self.context.skip(node, reason)
        elif node.inputs[0] is not None:
            # Used even where the value keeps another's scale: without it the same recipe
            # with only the used statistics would leave this layer in float.
            self.context.statistics.get(node.inputs[0].name)
        return reason is None

    def _quantizes_output(self, node: ir.Node) -> bool:
        if self.options.symmetric_activation:
            return False
        return is_op(node, "Conv") or self.options.dense_outputs
