"""Weights of dense layers in 8 or 4 bits with a scale per block; activations stay in float.

Each layer becomes one ``MatMulNBits``, which reads a quarter or an eighth of
the bytes: the form for layers that are bound by memory (one token at a time)
and for layers whose activations do not bear int8.
"""

from __future__ import annotations

from typing import Literal

import onnx_ir as ir

from converters import quantize
from converters.passes.dense import Dense, DenseOptions, DensePass
from converters.passes.graph_tools import CONTRIB, Editor

# The kernel may quantize activations to int8 per block; 0 would compute in fp32.
INT8_ACTIVATIONS = 4


class BlockWeightsOptions(DenseOptions, frozen=True, kw_only=True):
    """Options of ``block-weights``.

    Attributes:
        bits: Width of a weight.
        block_size: Weights along the input axis that share a scale.
        symmetric: Zero is the middle code; otherwise each block has a zero point.
        clip: Choose each block's range for the least squared error.
        accuracy_level: The kernel's lowest compute type: 0 or 1 fp32, 4 int8.
    """

    bits: Literal[4, 8] = 8
    block_size: Literal[16, 32, 64, 128, 256] = 128
    symmetric: bool = True
    clip: bool = False
    accuracy_level: int = INT8_ACTIVATIONS


class BlockWeights(DensePass):
    """Replaces dense layers by ``MatMulNBits`` (domain com.microsoft)."""

    name = "block-weights"
    options_type = BlockWeightsOptions

    def replace(self, layer: Dense, editor: Editor) -> ir.Value:
        """Inserts the block-quantized form of one layer, and its bias as an ``Add``."""
        options = self.options
        weight = self.once(layer, editor, lambda: self._quantized(layer))
        name = layer.node.name or layer.weight.name
        k, n = layer.array().shape
        product = editor.node(
            "MatMulNBits",
            [layer.data, *weight],
            before=layer.node,
            name=f"{name}_int{options.bits}",
            like=layer.output,
            domain=CONTRIB,
            K=k,
            N=n,
            bits=options.bits,
            block_size=options.block_size,
            accuracy_level=options.accuracy_level,
        )
        if layer.bias is None:
            return product
        bias = editor.initializer(f"{name}_bias", layer.bias)
        return editor.node(
            "Add", [product, bias], before=layer.node, name=f"{name}_biased", like=layer.output
        )

    def _quantized(self, layer: Dense) -> dict[str, quantize.Array]:
        options = self.options
        blocks = quantize.blockwise(
            layer.array(),
            options.bits,
            options.block_size,
            symmetric=options.symmetric,
            clip=options.clip,
        )
        arrays: dict[str, quantize.Array] = {"blocks": blocks.values, "scale": blocks.scale}
        if blocks.zero_point is not None:
            arrays["zero_point"] = blocks.zero_point
        return arrays
