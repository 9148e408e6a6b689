"""Dense layers in int8 with activations quantized at run time.

Each layer becomes one ``DynamicQuantizeMatMul``: uint8 activations with a scale
per tensor and call, int8 weights with a scale per output column, bias inside.
It needs no calibration.

Recurrent layers have no such operator; where asked to, their weights become int8 behind
``DequantizeLinear``, of which engines with hybrid kernels (LiteRT) make the same.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converters import quantize
from converters.passes.dense import Dense, DenseOptions, DensePass
from converters.passes.graph_tools import CONTRIB, Editor, constant, is_op
from converters.passes.store_small import RECURRENT


class DynamicInt8Options(DenseOptions, frozen=True, kw_only=True):
    """Options of ``dynamic-int8``.

    Attributes:
        reduce_range: Use 7-bit weights, for x86 without VNNI, whose 16-bit sums saturate.
        clip: Choose each column's scale for the least squared error.
        recurrent: Quantize the weights of ``LSTM``, ``GRU`` and ``RNN`` too.
    """

    reduce_range: bool = False
    clip: bool = False
    recurrent: bool = False


class DynamicInt8(DensePass):
    """Replaces dense layers by ``DynamicQuantizeMatMul`` (domain com.microsoft)."""

    name = "dynamic-int8"
    options_type = DynamicInt8Options

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Replaces every eligible layer of one graph."""
        count = super().rewrite(graph, model)
        if self.options.recurrent:
            editor = Editor(graph, model)
            layers = [node for node in graph if is_op(node, *RECURRENT) and self._is_wanted(node)]
            count += sum(self._stored(node, editor) for node in layers)
        return count

    def replace(self, layer: Dense, editor: Editor) -> ir.Value:
        """Inserts the int8 form of one layer."""
        weight, scale = self.once(layer, editor, lambda: self._quantized(layer))
        name = layer.node.name or layer.weight.name
        bias = None if layer.bias is None else editor.initializer(f"{name}_bias", layer.bias)
        return editor.node(
            "DynamicQuantizeMatMul",
            [layer.data, weight, scale, None, bias] if bias else [layer.data, weight, scale],
            before=layer.node,
            name=f"{name}_int8",
            like=layer.output,
            domain=CONTRIB,
        )

    def _quantized(self, layer: Dense) -> dict[str, quantize.Array]:
        limit = 63 if self.options.reduce_range else 127
        quantized = quantize.symmetric(layer.array(), axis=1, limit=limit, clip=self.options.clip)
        return {"int8": quantized.values, "scale": quantized.scale}

    def _is_wanted(self, node: ir.Node) -> bool:
        if self.options.include and node.name not in self.options.include:
            return False
        if node.name in self.options.exclude:
            self.context.skip(node, "excluded by the recipe")
            return False
        return True

    def _stored(self, node: ir.Node, editor: Editor) -> bool:
        """Puts the weights of a recurrent layer [directions, gates * hidden, …] in int8."""
        arrays = {index: constant(node.inputs[index]) for index in (1, 2)}
        sizes = [0 if array is None else array.size for array in arrays.values()]
        if min(sizes) < self.options.min_weight_elements:
            few = f"a weight has only {min(sizes)} elements"
            self.context.skip(node, few if min(sizes) else "its weights are computed")
            return False
        for index, array in arrays.items():
            assert array is not None
            rows = np.moveaxis(array, 1, 0)  # a scale per row, which directions share
            found = quantize.symmetric(rows.reshape(len(rows), -1), 0, clip=self.options.clip)
            codes = np.moveaxis(found.values.reshape(rows.shape), 0, 1)
            weight = node.inputs[index]
            assert weight is not None
            stored = [
                editor.initializer(f"{weight.name}_int8", codes),
                editor.initializer(f"{weight.name}_scale", found.scale),
            ]
            real = editor.node(
                "DequantizeLinear", stored, before=node, name=f"{weight.name}_real", like=weight,
                axis=1,
            )  # fmt: skip
            node.replace_input_with(index, real)
        return True
