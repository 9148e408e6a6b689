"""Activation functions: one kernel each where there is one, else a few cheap ones."""

from __future__ import annotations

import math

from ai_edge_litert import schema_py_generated as schema

from converters.litert.arithmetic import Math, compose
from converters.litert.call import Call, lowers
from converters.litert.operators.elementwise import aligned, result_shape, unary
from converters.litert.tensors import BOOL, FLOAT, Tensor
from converters.passes.graph_tools import CONTRIB
from converters.passes.qdq_placement import clamp_bounds

CLAMPS = {
    (0.0, math.inf): "RELU",
    (0.0, 6.0): "RELU6",
    (0.0, 1.0): "RELU_0_TO_1",
    (-1.0, 1.0): "RELU_N1_TO_1",
}


@lowers("Relu", "Clip", codes="rescaling")
def _clamp(call: Call) -> None:
    bounds = clamp_bounds(call.node)
    real = call.with_codes or call.tensor(0, call.held(0).perm).dtype == FLOAT
    if bounds in CLAMPS and real:
        unary(call, CLAMPS[bounds])
    else:
        call.refuse_codes()
        _between(call)


def _between(call: Call) -> None:
    """A clamp by comparisons: any bounds, any type."""
    perm = call.held(0).perm
    data = call.tensor(0, perm)
    if call.node.op_type == "Relu":
        data = call.emit("MAXIMUM", [data, call.number_tensor(0, data)], data.shape)
    for index, op in ((1, "MAXIMUM"), (2, "MINIMUM")):
        if call.has(index):
            bound = call.values.cast(call.tensor(index), data.dtype)
            data = call.emit(op, [data, bound], data.shape)
    call.give(data, perm)


@lowers("LeakyRelu", codes="rescaling")
def _leaky_relu(call: Call) -> None:
    alpha = call.node.attributes.get_float("alpha", 0.01)
    unary(call, "LEAKY_RELU", schema.LeakyReluOptionsT(alpha))


@lowers("PRelu")
def _prelu(call: Call) -> None:
    tensors, perm = aligned(call, [0, 1])
    call.give(call.emit("PRELU", tensors), perm)


@lowers("Elu")
def _elu(call: Call) -> None:
    alpha = call.node.attributes.get_float("alpha", 1.0)
    compose(call, lambda m, x: _elu_of(m, x, alpha, 1.0))


@lowers("Selu")
def _selu(call: Call) -> None:
    alpha = call.node.attributes.get_float("alpha", 1.6732632423543772)
    gamma = call.node.attributes.get_float("gamma", 1.0507009873554805)
    compose(call, lambda m, x: m.mul(_elu_of(m, x, alpha, 1.0), gamma))


@lowers("Celu")
def _celu(call: Call) -> None:
    alpha = call.node.attributes.get_float("alpha", 1.0)
    compose(call, lambda m, x: _elu_of(m, x, alpha, 1 / alpha))


@lowers("Gelu")
def _gelu(call: Call) -> None:
    tanh = call.node.attributes.get_string("approximate", "none") == "tanh"
    unary(call, "GELU", schema.GeluOptionsT(approximate=tanh))


@lowers("Gelu", "FastGelu", "QuickGelu", "BiasGelu", domain=CONTRIB)
def _contrib_gelu(call: Call) -> None:
    kind = call.node.op_type
    if kind == "QuickGelu":
        alpha = call.node.attributes.get_float("alpha", 1.702)
        compose(call, lambda m, x: m.mul(x, m.unary("LOGISTIC", m.mul(x, alpha))))
        return
    options = schema.GeluOptionsT(approximate=kind == "FastGelu")
    if call.has(1):
        tensors, perm = aligned(call, [0, 1])
        shape = result_shape(call, tensors, perm)
        total = call.emit("ADD", tensors, shape, options=schema.AddOptionsT())
        call.give(call.emit("GELU", [total], options=options), perm)
    else:
        unary(call, "GELU", options)


@lowers("HardSigmoid")
def _hard_sigmoid(call: Call) -> None:
    alpha = call.node.attributes.get_float("alpha", 0.2)
    beta = call.node.attributes.get_float("beta", 0.5)
    compose(call, lambda m, x: m.unary("RELU_0_TO_1", m.add(m.mul(x, alpha), beta)))


@lowers("Softplus")
def _softplus(call: Call) -> None:
    compose(call, _softplus_of)


@lowers("Mish")
def _mish(call: Call) -> None:
    compose(call, lambda m, x: m.mul(x, m.unary("TANH", _softplus_of(m, x))))


@lowers("Softsign")
def _softsign(call: Call) -> None:
    compose(call, lambda m, x: m.div(x, m.add(m.unary("ABS", x), 1.0)))


@lowers("Swish")
def _swish(call: Call) -> None:
    alpha = call.node.attributes.get_float("alpha", 1.0)
    compose(call, lambda m, x: m.mul(x, m.unary("LOGISTIC", m.mul(x, alpha))))


@lowers("ThresholdedRelu")
def _thresholded(call: Call) -> None:
    alpha = call.node.attributes.get_float("alpha", 1.0)

    def masked(m: Math, x: Tensor) -> Tensor:
        mask = m.call.emit("GREATER", [x, m.number(alpha)], x.shape, BOOL)
        return m.mul(x, m.call.values.cast(mask, x.dtype))

    compose(call, masked)


@lowers("Erf")
def _erf(call: Call) -> None:
    """Abramowitz and Stegun 7.1.26: wrong by 1.5e-7 at most."""
    factors = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)

    def erf(m: Math, x: Tensor) -> Tensor:
        size = m.unary("ABS", x)
        t = m.div(m.number(1.0), m.add(m.mul(size, 0.3275911), 1.0))
        total = m.mul(t, factors[0])
        for factor in factors[1:]:
            total = m.mul(m.add(total, factor), t)
        gauss = m.unary("EXP", m.mul(m.mul(x, x), -1.0))
        return m.mul(m.unary("SIGN", x), m.sub(m.number(1.0), m.mul(total, gauss)))

    compose(call, erf)


@lowers("Sinh", "Cosh", "Tan")
def _rare(call: Call) -> None:
    if call.node.op_type == "Tan":
        compose(call, lambda m, x: m.div(m.unary("SIN", x), m.unary("COS", x)))
        return
    join = Math.sub if call.node.op_type == "Sinh" else Math.add
    compose(call, lambda m, x: m.mul(join(m, m.unary("EXP", x), m.unary("EXP", m.mul(x, -1))), 0.5))


@lowers("Softmax", "LogSoftmax")
def _softmax(call: Call) -> None:
    axis = call.axis(-1)
    perm = call.last(axis)
    data = call.tensor(0, perm)
    if call.node.op_type == "Softmax":
        result = call.emit("SOFTMAX", [data], options=schema.SoftmaxOptionsT(beta=1.0))
    else:
        result = call.emit("LOG_SOFTMAX", [data], options=schema.LogSoftmaxOptionsT())
    call.give(result, perm)


def _elu_of(m: Math, x: Tensor, alpha: float, inner: float) -> Tensor:
    if alpha == inner == 1:
        return m.unary("ELU", x)
    negative = m.call.emit("MINIMUM", [x, m.number(0.0)], x.shape)
    bent = m.mul(m.sub(m.unary("EXP", m.mul(negative, inner)), 1.0), alpha)
    return m.add(m.unary("RELU", x), bent)


def _softplus_of(m: Math, x: Tensor) -> Tensor:
    """``log(1 + exp(x))`` without overflow."""
    small = m.unary("EXP", m.unary("NEG", m.unary("ABS", x)))
    return m.add(m.unary("RELU", x), m.unary("LOG", m.add(small, 1.0)))
