"""Convolutions and pools: channels last, padding by the kernel where it can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.litert.call import Call, lowers
from converters.litert.tensors import Array, Shape, Tensor, channels_last, shifted
from converters.litert.weights import Layer, bias_tensor, layer_tensor

SAME, VALID = schema.Padding.SAME, schema.Padding.VALID


@dataclass(frozen=True)
class Window:
    """How a kernel moves over the spatial axes.

    Attributes:
        kernel: Its size per axis.
        strides: Its steps.
        dilations: Distance of its taps.
        begin: Padding before.
        end: Padding behind.
        sizes: Sizes of the input.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    sizes: Shape

    @classmethod
    def of(cls, call: Call, kernel: Sequence[int]) -> Window:
        """The window that a node's attributes describe."""
        attributes, count = call.node.attributes, len(kernel)
        strides = tuple(attributes.get_ints("strides", (1,) * count))
        dilations = tuple(attributes.get_ints("dilations", (1,) * count))
        sizes = call.shape(0)[2:]
        pads = tuple(attributes.get_ints("pads", (0,) * 2 * count))
        window = cls(tuple(kernel), strides, dilations, pads[:count], pads[count:], sizes)
        auto = attributes.get_string("auto_pad", "NOTSET")
        if auto in ("NOTSET", "VALID"):
            return window
        total = window._same_total()
        if total is None:
            raise call.unsupported("its padding depends on a size known only at run time")
        small = tuple(pad // 2 for pad in total)
        large = tuple(pad - less for pad, less in zip(total, small, strict=True))
        begin, end = (small, large) if auto == "SAME_UPPER" else (large, small)
        return cls(window.kernel, strides, dilations, begin, end, sizes)

    @property
    def reach(self) -> tuple[int, ...]:
        """How far the kernel reaches, holes included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def is_padded(self) -> bool:
        """Whether anything is added on a side."""
        return any(self.begin) or any(self.end)

    @property
    def is_same(self) -> bool:
        """Whether its padding is what the engine's own scheme gives for its input."""
        total = self._same_total()
        if total is None:
            return False
        begin = tuple(pad // 2 for pad in total)
        return self.begin == begin and all(
            b + e == pad for b, e, pad in zip(self.begin, self.end, total, strict=True)
        )

    def output(self, ceil: bool = False) -> Shape:
        """Sizes of the result."""
        found: list[int | None] = []
        columns = (self.sizes, self.begin, self.end, self.reach, self.strides)
        for size, begin, end, reach, stride in zip(*columns, strict=True):
            if not isinstance(size, int):
                found.append(None)
                continue
            room = size + begin + end - reach
            steps = -(-room // stride) if ceil else room // stride
            # A window that would begin behind the input and its padding does not count.
            if ceil and steps * stride >= size + begin:
                steps -= 1
            found.append(steps + 1)
        return tuple(found)

    def grown_to(self, output: Shape) -> Window:
        """The window with so much padding behind that it gives these sizes."""
        columns = (output, self.sizes, self.begin, self.end, self.reach, self.strides)
        end = tuple(
            have
            if not isinstance(size, int) or not isinstance(count, int)
            else max(have, (count - 1) * step + reach - size - b)
            for count, size, b, have, reach, step in zip(*columns, strict=True)
        )
        return replace(self, end=end)

    def taps_inside(self, begin: Sequence[int], end: Sequence[int]) -> list[Array] | None:
        """Per axis, how many taps of each step lie inside the input with some of its padding."""
        found: list[Array] = []
        columns = (self.output(), self.sizes, self.kernel, self.strides, self.begin, begin, end)
        for count, size, kernel, step, first, before, behind in zip(*columns, strict=True):
            if not isinstance(count, int) or not isinstance(size, int):
                return None
            starts = np.arange(count) * step - first
            stops = np.minimum(starts + kernel, size + behind)
            found.append(stops - np.maximum(starts, -before))
        return found

    def _same_total(self) -> tuple[int, ...] | None:
        """The padding per axis that keeps sizes (divided by the stride)."""
        found = []
        for size, reach, stride in zip(self.sizes, self.reach, self.strides, strict=True):
            if stride == 1:
                found.append(reach - 1)
            elif not isinstance(size, int):
                return None
            else:
                found.append(max((-(-size // stride) - 1) * stride + reach - size, 0))
        return tuple(found)


@lowers("Conv", codes="rescaling")
def _conv(call: Call) -> None:
    if call.has(2) and not call.held(2).is_constant:
        raise call.unsupported("its bias is computed at run time")
    convolve(call, call.constant(2))


def convolve(call: Call, bias: Array | None) -> None:
    """A convolution with the weight that is the second input."""
    weight = call.held(1)
    if not weight.is_constant:
        raise call.unsupported("its weight is computed at run time")
    spatial = len(weight.shape) - 2
    kernel = weight.sizes[2:]
    window = Window.of(call, kernel)
    data = call.tensor(0, channels_last(spatial + 2))
    if spatial == 1:
        _conv2d(call, *widened(call, data, window), bias, line=True)
    elif spatial == 2:
        _conv2d(call, data, window, bias)
    else:
        _conv3d(call, window, bias)


def widened(call: Call, data: Tensor, window: Window) -> tuple[Tensor, Window]:
    """A sequence as an image of one row."""
    wide = Window(
        (1, *window.kernel),
        (1, *window.strides),
        (1, *window.dilations),
        (0, *window.begin),
        (0, *window.end),
        (1, *window.sizes),
    )
    return call.unsqueeze(data, (1,)), wide


def _conv2d(
    call: Call, data: Tensor, window: Window, bias: Array | None, line: bool = False
) -> None:
    groups, channels = call.node.attributes.get_int("group", 1), call.held(1).sizes[0]
    depthwise = groups > 1 and groups == data.shape[-1] and call.held(1).shape[1] == 1
    source = call.held(1).shape
    order = (0, *range(2, len(source)), 1) if not depthwise else (1, *range(2, len(source)), 0)
    layer = Layer.of(call, 1, order, axis=0)
    if line:
        layer.array = np.expand_dims(layer.array, 1)
        layer.axis = 3 if depthwise else 0
    data, padding = padded(call, data, window)
    shape = (data.shape[0], *window.output(), channels)
    clamp = call.absorb_clamp()
    weight = layer_tensor(call, layer, 3 if depthwise else 0)
    options = {
        "padding": padding,
        "strideH": window.strides[0],
        "strideW": window.strides[1],
        "dilationHFactor": window.dilations[0],
        "dilationWFactor": window.dilations[1],
        "fusedActivationFunction": clamp,
    }
    # Some kernels read a bias without asking whether there is one.
    bias = np.zeros(channels, np.float32) if bias is None else bias
    inputs = [data, weight, bias_tensor(call, bias, data, weight)]
    if depthwise:
        op, kind = "DEPTHWISE_CONV_2D", schema.DepthwiseConv2DOptionsT
        options["depthMultiplier"] = channels // groups
    else:
        op, kind = "CONV_2D", schema.Conv2DOptionsT
    result = call.emit(op, inputs, shape, options=kind(**options), quantization=call.target)
    if line:
        result = call.squeeze(result, (1,))
    call.give(result, channels_last(result.rank))


def _conv3d(call: Call, window: Window, bias: Array | None) -> None:
    if call.node.attributes.get_int("group", 1) != 1:
        raise call.unsupported("a 3-D convolution in groups has no kernel")
    call.refuse_codes()
    data = call.tensor(0, channels_last(5))
    weight = call.constant(1)
    assert weight is not None, "checked before"
    data, padding = padded(call, data, window)
    names = ("D", "H", "W")
    options = schema.Conv3DOptionsT(
        padding=padding,
        **{f"stride{name}": step for name, step in zip(names, window.strides, strict=True)},
        **{f"dilation{name}Factor": d for name, d in zip(names, window.dilations, strict=True)},
        fusedActivationFunction=call.absorb_clamp(),
    )
    graph = call.values.graph
    inputs = [data, graph.constant(weight.transpose(2, 3, 4, 1, 0))]
    inputs.append(graph.constant(np.zeros(weight.shape[0], np.float32) if bias is None else bias))
    shape = (data.shape[0], *window.output(), weight.shape[0])
    call.give(call.emit("CONV_3D", inputs, shape, options=options), channels_last(5))


def padded(
    call: Call, data: Tensor, window: Window, fill: float = 0, own_scheme: bool = True
) -> tuple[Tensor, int]:
    """The data of a window, padded by an operator where the kernel's own scheme differs.

    Args:
        call: The node.
        data: Channels last.
        window: The window.
        fill: What to pad with, where the kernel does not.
        own_scheme: Whether the kernel may do it.

    Returns:
        The data, and the padding scheme of the kernel.
    """
    if not window.is_padded:
        return data, VALID
    if own_scheme and window.is_same:
        return data, SAME
    sides = [(0, 0), *zip(window.begin, window.end, strict=True), (0, 0)]
    return pad(call, data, sides, fill), VALID


def pad(call: Call, data: Tensor, sides: Sequence[tuple[int, int]], fill: float = 0) -> Tensor:
    """``data`` with further elements around it; codes of zero stand for zeros."""
    if not any(map(any, sides)):
        return data
    shape = tuple(
        shifted(size, sum(side)) if any(side) else size
        for size, side in zip(data.shape, sides, strict=True)
    )
    amounts = call.values.integers(sides)
    if not fill:
        return call.emit("PAD", [data, amounts], shape)
    lowest = np.iinfo(np.int8).min
    number = fill if data.quantization is None else lowest
    array = np.array(max(number, np.finfo(np.float32).min), data.dtype)
    constant = call.values.graph.constant(array, quantization=data.quantization)
    return call.emit("PADV2", [data, amounts, constant], shape)
