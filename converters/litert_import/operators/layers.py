"""Convolutions, pooling and dense layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from converters.litert_import.call import Call, operator

SAME, VALID = 0, 1  # schema.Padding
FILTER = (0, 3, 1, 2)  # [out, height, width, in] as ONNX has it
DEPTHWISE = (3, 0, 1, 2)  # [1, height, width, out], which has no axis of inputs
TRANSPOSED = (3, 0, 1, 2)  # [out, height, width, in] of a transposed convolution
POOLS = {"AVERAGE_POOL_2D": "AveragePool", "MAX_POOL_2D": "MaxPool"}


@operator("CONV_2D", "DEPTHWISE_CONV_2D")
def convolution(call: Call) -> None:
    """A convolution; depthwise, one of as many groups as there are channels."""
    depthwise = call.node.op == "DEPTHWISE_CONV_2D"
    shape = call.shape(1)
    weight = _weight(call, 1, DEPTHWISE if depthwise else FILTER)
    channels = call.shape(0)[3]
    window = _window(call, shape[1:3], _pair(call, "dilation", 1))
    value = call.emit(
        "Conv",
        [call.get(0, first=True), weight, _bias(call, 2)],
        group=channels if depthwise else channels // shape[3],
        dilations=_pair(call, "dilation", 1),
        **window,
    )
    call.set(value, first=True)


@operator("TRANSPOSE_CONV")
def transposed_convolution(call: Call) -> None:
    """A transposed convolution to a given size, which decides what is cut or added."""
    height, width = call.numbers(0)[1:3] if call.known(0) is not None else call.out_shape[1:3]
    if min(height, width, *call.shape(2)[1:3]) < 0:
        raise call.refuse("the size of the picture is free")
    kernel, strides = call.shape(1)[1:3], _pair(call, "stride")
    surplus = [
        (size - 1) * stride + edge - out
        for size, stride, edge, out in zip(
            call.shape(2)[1:3], strides, kernel, (height, width), strict=True
        )
    ]
    begins = [max(extra, 0) // 2 for extra in surplus]
    ends = [max(extra, 0) - begin for extra, begin in zip(surplus, begins, strict=True)]
    value = call.emit(
        "ConvTranspose",
        [call.get(2, first=True), _weight(call, 1, TRANSPOSED, data=2), _bias(call, 3, data=2)],
        strides=strides,
        pads=begins + ends,
        output_padding=[max(-extra, 0) for extra in surplus],
    )
    call.set(value, first=True)


@operator(*POOLS)
def pool(call: Call) -> None:
    """The mean or the largest of a window; what lies beyond the edge does not count."""
    kernel = [call.option("filterHeight"), call.option("filterWidth")]
    value = call.emit(
        POOLS[call.node.op],
        [call.get(0, first=True)],
        kernel_shape=kernel,
        **_window(call, kernel, [1, 1]),
    )
    call.set(value, first=True)


@operator("FULLY_CONNECTED")
def dense(call: Call) -> None:
    """``x Wᵀ + b``; what has more than two axes becomes rows, unless the axes are to stay."""
    if call.option("weightsFormat", 0):
        raise call.refuse("its weights are shuffled for one kind of CPU")
    value, bias = call.get(0), _bias(call, 2)
    keeps = bool(call.option("keepNumDims", False))
    rank = len(call.shape(0))
    if rank != 2 and not keeps:
        value = call.emit("Reshape", [value, call.values.array([-1, call.shape(1)[1]], "int64")])
    if rank == 2 or not keeps:
        inputs = [value, _weight(call, 1, None), bias]
        call.set(call.emit("Gemm", inputs, transB=1))
        return
    value = call.emit("MatMul", [value, _weight(call, 1, (1, 0))])
    call.set(value if bias is None else call.emit("Add", [value, bias]))


@operator("BATCH_MATMUL")
def batch_matmul(call: Call) -> None:
    """Matrix products over the last two axes, either side transposed first."""
    sides = []
    for position, option in ((0, "adjX"), (1, "adjY")):
        rank = len(call.shape(position))
        swap = (*range(rank - 2), rank - 1, rank - 2) if call.option(option, False) else None
        index = call.index(position)
        if call.values.is_constant(index):
            side = _weight(call, position, swap, data=1 - position)
        else:
            side = call.get(position)
            side = call.emit("Transpose", [side], perm=swap) if swap else side
        sides.append(side)
    call.set(call.emit("MatMul", sides))


@operator("LOCAL_RESPONSE_NORMALIZATION")
def local_response_normalization(call: Call) -> None:
    """Each value over the squares of its neighbours along the channels."""
    size = 2 * call.option("radius", 0) + 1
    value = call.emit(
        "LRN",
        [call.get(0, first=True)],
        size=size,
        alpha=float(call.option("alpha", 0.0)) * size,  # ONNX takes the mean, not the sum
        beta=float(call.option("beta", 0.0)),
        bias=float(call.option("bias", 0.0)),
    )
    call.set(value, first=True)


def _weight(call: Call, position: int, axes: Sequence[int] | None, *, data: int = 0) -> ir.Value:
    """A layer's weight; of a layer over floats always floats."""
    index = call.index(position)
    if not call.values.is_constant(index):
        value = call.get(position)
        return value if axes is None else call.emit("Transpose", [value], perm=axes)
    over_floats = not call.values.is_quantized(call.index(data))
    return call.values.weight(index, axes, float_layer=over_floats)


def _bias(call: Call, position: int, *, data: int = 0) -> ir.Value | None:
    if not call.has(position):
        return None
    return _weight(call, position, None, data=data)


def _pair(call: Call, option: str, default: int | None = None) -> list[int]:
    names = {"stride": ("strideH", "strideW"), "dilation": ("dilationHFactor", "dilationWFactor")}
    return [int(call.option(name, default)) for name in names[option]]


def _window(call: Call, kernel: Sequence[int], dilations: Sequence[int]) -> dict[str, Any]:
    """Strides, and padding in numbers where the size of the picture is known."""
    strides = _pair(call, "stride")
    if call.option("padding", SAME) == VALID:
        return {"strides": strides}
    sizes = call.shape(0)[1:3]
    if min(sizes) < 0:
        return {"strides": strides, "auto_pad": "SAME_UPPER"}
    totals = [
        max((-(-size // stride) - 1) * stride + (edge - 1) * dilation + 1 - size, 0)
        for size, stride, edge, dilation in zip(sizes, strides, kernel, dilations, strict=True)
    ]
    begins = [total // 2 for total in totals]
    ends = [total - begin for total, begin in zip(totals, begins, strict=True)]
    return {"strides": strides, "pads": begins + ends}
