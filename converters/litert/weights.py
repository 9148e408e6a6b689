"""Constant weights of layers, in the type and layout that kernels want."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters import quantize
from converters.litert.tensors import FLOAT, Array, Perm, Quantization, Tensor

if TYPE_CHECKING:
    from converters.litert.call import Call

# Smaller ones are not worth the bytes, and their rounding is not averaged out.
SMALLEST = 1024


@dataclass
class Layer:
    """The weight of one layer in its final layout.

    Attributes:
        array: Real numbers, or codes where ``scale`` says what they stand for.
        scale: float32 [channels], or ``None`` for real numbers.
        channels: Number of outputs.
        axis: Their axis in ``array``.
    """

    array: Array
    scale: Array | None
    channels: int
    axis: int

    @classmethod
    def of(cls, call: Call, index: int, perm: Perm, axis: int) -> Layer:
        """The constant input ``index`` of a node.

        Args:
            call: The node.
            index: Which input.
            perm: The layout that the kernel wants.
            axis: The axis of the output channels in the input.
        """
        value = call.node.inputs[index]
        assert value is not None
        held = call.values[value]
        channels = held.sizes[axis]
        codes = held if held.quantization is not None else held.codes
        if codes is not None and codes.array is not None and codes.quantization is not None:
            scale = np.array(codes.quantization.scale, np.float32)
            usable = codes.array.dtype == np.int8 and codes.quantization.zero_point == 0
            if usable and (scale.size == 1 or codes.quantization.axis == axis):
                scale = np.broadcast_to(scale, (channels,))
                return cls(np.transpose(codes.array, perm), scale, channels, perm.index(axis))
        array = held.numpy()
        assert array is not None, "callers ask for constants only"
        return cls(np.transpose(array, perm), None, channels, perm.index(axis))

    def scale_by(self, factor: float) -> None:
        """Multiplies the weight by a number."""
        if factor == 1:
            return
        if self.scale is not None:
            self.scale = self.scale * np.float32(factor)
        else:
            self.array = self.array * np.float32(factor)


def layer_tensor(call: Call, layer: Layer, quantized_axis: int) -> Tensor:
    """The constant with a layer's weight.

    Computing with codes needs codes; otherwise the type the caller asked for is used,
    and codes stay codes.
    """
    name = f"{call.node.name or call.node.outputs[0].name}_weight"
    small = layer.array.size < SMALLEST
    if layer.scale is None and (call.with_codes or (call.weights == "int8" and not small)):
        found = quantize.symmetric(np.asarray(layer.array, np.float32), layer.axis)
        layer = Layer(found.values, found.scale, layer.channels, layer.axis)
    graph = call.values.graph
    if layer.scale is not None:
        # Releases up to 2.14 take no list in dense layers of floats, though all are the same.
        same = not call.with_codes and bool((layer.scale == layer.scale[0]).all())
        scale = layer.scale[:1] if same else layer.scale
        quantization = Quantization(tuple(scale.tolist()), 0, quantized_axis)
        return graph.constant(layer.array, name, quantization)
    return stored(call, np.asarray(layer.array, np.float32), "weight")


def stored(call: Call, array: Array, what: str) -> Tensor:
    """A constant, in half its width if the caller asked for that and it is large."""
    graph = call.values.graph
    name = f"{call.node.name or call.node.outputs[0].name}_{what}"
    if array.dtype != FLOAT or call.weights != "float16" or array.size < SMALLEST:
        return graph.constant(array, name)
    half = graph.constant(array.astype(np.float16), name)
    return call.values.add("DEQUANTIZE", [half], half.shape, FLOAT)


def bias_tensor(call: Call, bias: Array | None, data: Tensor, weight: Tensor) -> Tensor | None:
    """The constant with a layer's bias: int32 in steps of data times weight, for codes."""
    if bias is None:
        return None
    name = f"{call.node.name or call.node.outputs[0].name}_bias"
    if not call.with_codes:
        return call.values.graph.constant(np.asarray(bias, np.float32), name)
    assert data.quantization is not None and weight.quantization is not None
    steps = np.array(weight.quantization.scale, np.float32) * np.float32(data.quantization.scale[0])
    codes = np.rint(bias.astype(np.float64) / steps)
    info = np.iinfo(np.int32)
    codes = np.clip(codes, info.min, info.max).astype(np.int32)
    return call.values.graph.constant(codes, name, Quantization(tuple(steps.tolist())))
