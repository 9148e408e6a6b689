"""Quantized values: pairs of ``QuantizeLinear`` and ``DequantizeLinear``, and fused forms."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converters.litert.arithmetic import Math
from converters.litert.call import Call, lowers, quantization_of
from converters.litert.operators.convolution import convolve
from converters.litert.operators.dense import fully_connected
from converters.litert.tensors import FLOAT, Array, Quantization
from converters.litert.values import Held, hold
from converters.litert.weights import Layer
from converters.passes.graph_tools import CONTRIB


@lowers("QuantizeLinear")
def _quantize(call: Call) -> None:
    target = _parameters(call)
    data = call.held(0)
    if len(target.scale) > 1:
        raise call.unsupported("its activation has a scale per channel")
    if data.codes is not None and data.codes.quantization == target:
        codes = data.codes
    else:
        have = data.codes if data.codes is not None and not data.forms else data
        tensor = call.values.requantize(call.values.form(have, have.perm), target)
        codes = hold(tensor, have.perm)
    # Nobody may read the numbers from before: codes saturate where a clamp has been left out.
    codes.codes = data if data.array is not None else None
    call.values[call.output] = codes


@lowers("DequantizeLinear")
def _dequantize(call: Call) -> None:
    parameters = _parameters(call)
    codes = call.held(0)
    if codes.array is not None:
        constant = Held(codes.shape, array=_signed(codes.array), quantization=parameters)
        call.values[call.output] = Held(codes.shape, codes=constant)
        return
    if codes.quantization is None:
        _made_real(call, parameters)
        return
    if codes.quantization == parameters:
        real = codes.codes
        forms = dict(real.forms) if real is not None else {}
        call.values[call.output] = Held(codes.shape, forms, codes=codes)
        return
    # The same codes, read at another scale.
    tensor = call.values.form(codes, codes.perm)
    shape = call.values.sizes(tensor.shape, free=True)
    renamed = call.emit(
        "RESHAPE", [tensor, shape], tensor.shape, tensor.dtype, quantization=parameters
    )
    call.values[call.output] = Held(codes.shape, codes=hold(renamed, codes.perm))


def _made_real(call: Call, parameters: Quantization) -> None:
    """Integers that this graph did not quantize itself, such as an input."""
    if len(parameters.scale) > 1:
        raise call.unsupported("its activation has a scale per channel")
    m, perm = Math(call), call.held(0).perm
    wide = call.values.cast(call.tensor(0, perm), FLOAT)
    unsigned = call.node.inputs[0] is not None and call.node.inputs[0].dtype == ir.DataType.UINT8
    zero_point = parameters.zero_point + (128 if unsigned else 0)
    centred = m.sub(wide, float(zero_point)) if zero_point else wide
    call.give(m.mul(centred, parameters.scale[0]), perm)


@lowers("DynamicQuantizeMatMul", domain=CONTRIB)
def _dynamic_matmul(call: Call) -> None:
    codes, scale, zero_point = (call.constant(index) for index in (1, 2, 3))
    if codes is None or scale is None or codes.dtype != np.int8:
        raise call.unsupported("its weight is not constant int8")
    if zero_point is not None and zero_point.any():
        raise call.unsupported("its weight has a zero point")
    channels = codes.shape[1]
    layer = Layer(codes.T, np.broadcast_to(scale.reshape(-1), (channels,)), channels, 0)
    call.give(fully_connected(call, call.tensor(0), layer, call.constant(4)))


@lowers("DynamicQuantizeLinear")
def _quantize_at_run_time(call: Call) -> None:
    """Leaves the value as it is, at scale 1: kernels with int8 weights quantize it themselves."""
    call.give_held(call.held(0))
    for index, array in ((1, np.ones((), np.float32)), (2, np.zeros((), np.uint8))):
        call.give_held(Held((), array=array), index)


@lowers("MatMulInteger")
def _matmul_integer(call: Call) -> None:
    _integer_weight(call)
    layer = Layer.of(call, 1, (1, 0), axis=1)
    call.give(fully_connected(call, call.tensor(0), layer, None))


@lowers("ConvInteger")
def _conv_integer(call: Call) -> None:
    _integer_weight(call)
    convolve(call, None)


def _integer_weight(call: Call) -> None:
    """Reads the second input as codes at scale 1, for data that was left as it is."""
    data, value = call.held(0), call.node.inputs[1]
    array = call.constant(1)
    left = call.constant(2)
    if value is None or array is None or data.quantization is not None or (left or 0) != 0:
        raise call.unsupported(
            "its weight is not constant, or its data is not quantized just before"
        )
    point = call.constant(3)
    zero_point = 0 if point is None else int(point.reshape(-1)[0])
    if point is not None and (point != point.reshape(-1)[0]).any():
        raise call.unsupported("its weight has a zero point per channel")
    shift = 128 if array.dtype == np.uint8 else 0
    held = Held(array.shape, array=_signed(array))
    held.quantization = Quantization((1.0,), zero_point - shift)
    call.values[value] = Held(array.shape, codes=held)


def _parameters(call: Call) -> Quantization:
    found = quantization_of(call.node)
    if found is None:
        raise call.unsupported("its scale or zero point is not constant, or not of 8 bits")
    return found


def _signed(codes: Array) -> Array:
    """uint8 codes as those of int8, which stand for the same numbers at a zero point less 128."""
    if codes.dtype != np.uint8:
        return codes
    return (codes.astype(np.int16) - 128).astype(np.int8)
