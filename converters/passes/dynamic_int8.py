"""Dense layers in int8 with activations quantized at run time.

Each layer becomes one ``DynamicQuantizeMatMul``: uint8 activations with a scale
per tensor and call, int8 weights with a scale per output column, bias inside.
It needs no calibration.
"""

from __future__ import annotations

import onnx_ir as ir

from converters import quantize
from converters.passes.dense import Dense, DenseOptions, DensePass
from converters.passes.graph_tools import CONTRIB, Editor


class DynamicInt8Options(DenseOptions, frozen=True, kw_only=True):
    """Options of ``dynamic-int8``.

    Attributes:
        reduce_range: Use 7-bit weights, for x86 without VNNI, whose 16-bit sums saturate.
        clip: Choose each column's scale for the least squared error.
    """

    reduce_range: bool = False
    clip: bool = False


class DynamicInt8(DensePass):
    """Replaces dense layers by ``DynamicQuantizeMatMul`` (domain com.microsoft)."""

    name = "dynamic-int8"
    options_type = DynamicInt8Options

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
