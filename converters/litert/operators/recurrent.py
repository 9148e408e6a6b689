"""``LSTM``, ``GRU`` and ``RNN``: a short sequence is unrolled, any other runs in a loop.

The products with the inputs do not depend on the state: they are one fully
connected layer over all steps, and each step adds its product with the state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.litert.arithmetic import Math
from converters.litert.call import Call, lowers
from converters.litert.loops import Step, repeat, row_at
from converters.litert.tensors import FLOAT, Array, Shape, Size, Tensor
from converters.litert.values import Values
from converters.litert.weights import Layer, bias_tensor, layer_tensor
from converters.passes.graph_tools import CONTRIB

LONGEST_UNROLLED = 16

State = list[Tensor]
# From the step's product with the input and the state to the new state; the first is the output.
Cell = Callable[[Call, Tensor, State], State]

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
ACTIVATIONS = {"sigmoid": "LOGISTIC", "tanh": "TANH", "relu": "RELU"}


@dataclass(frozen=True)
class Direction:
    """The weights of one direction.

    Attributes:
        weight: [gates * hidden, inputs].
        recurrence: [gates * hidden, hidden].
        bias: float32 [2, gates * hidden], for inputs and for the state.
        peephole: float32 [3, hidden], or ``None``.
        activations: The kernels of its gates.
        backwards: Whether it runs from the last step to the first.
    """

    weight: Layer
    recurrence: Layer
    bias: Array
    peephole: Array | None
    activations: tuple[str, ...]
    backwards: bool

    @property
    def hidden(self) -> int:
        """Size of the state."""
        return int(self.recurrence.array.shape[1])


@lowers("LSTM", "GRU", "RNN")
def _recurrent(call: Call) -> None:
    if not call.held(1).is_constant or not call.held(2).is_constant:
        raise call.unsupported("its weights are computed at run time")
    # A channel per gate and unit: the second axis, behind the directions.
    _layer(call, call.node.op_type, *(Layer.of(call, index, (0, 1, 2), 1) for index in (1, 2)))


@lowers("DynamicQuantizeLSTM", domain=CONTRIB)
def _quantized_lstm(call: Call) -> None:
    """With its weights made real: codes of two directions have no scales in common."""
    found = []
    for index, parameters in ((1, 8), (2, 10)):
        codes, scale, point = (call.constant(i) for i in (index, parameters, parameters + 1))
        if codes is None or scale is None or point is None:
            raise call.unsupported("its weights are computed at run time")
        steps, zero = (item.reshape(len(codes), 1, -1) for item in (scale, point))
        real = (codes.astype(np.float32) - zero.astype(np.float32)) * steps
        found.append(Layer(real.transpose(0, 2, 1), None, codes.shape[2], 1))
    _layer(call, "LSTM", *found)


def _layer(call: Call, kind: str, weights: Layer, recurrences: Layer) -> None:
    if call.has(4):
        raise call.unsupported("it is told the length of each sequence")
    if call.node.attributes.get_float("clip", 0.0) or call.node.attributes.get_int(
        "input_forget", 0
    ):
        raise call.unsupported("it clips its gates, or ties two of them")
    batch_first = bool(call.node.attributes.get_int("layout", 0))
    data = call.tensor(0, (1, 0, 2) if batch_first else None)
    directions = _directions(call, weights, recurrences, GATES[kind])
    states = 2 if kind == "LSTM" else 1
    outputs: list[Tensor] = []
    last: list[State] = []
    for index, direction in enumerate(directions):
        first = [_initial(call, data, 5 + at, index, direction.hidden) for at in range(states)]
        output, final = _run(call, data, direction, CELLS[kind](call, direction), first)
        outputs.append(output)
        last.append(final)
    _give(call, outputs, last, batch_first)


def _directions(call: Call, weights: Layer, recurrences: Layer, gates: int) -> list[Direction]:
    bias = call.constant(3)
    if call.has(3) and bias is None:
        raise call.unsupported("its bias is computed at run time")
    count, hidden = weights.array.shape[0], recurrences.array.shape[2]
    bias = np.zeros((count, 2 * gates * hidden), np.float32) if bias is None else bias
    peepholes = call.constant(7)
    kind = call.node.attributes.get_string("direction", "forward")
    return [
        Direction(
            _of(weights, index),
            _of(recurrences, index),
            bias[index].reshape(2, -1),
            None if peepholes is None else peepholes[index].reshape(3, hidden),
            _activations(call, index, count),
            kind == "reverse" or index == 1,
        )
        for index in range(count)
    ]


def _of(layer: Layer, direction: int) -> Layer:
    """One direction of weights [directions, channels, …]."""
    return Layer(layer.array[direction], layer.scale, layer.channels, 0)


def _rows(layer: Layer, begin: int, end: int | None = None) -> Layer:
    """Some channels of a weight [channels, …]."""
    scale = None if layer.scale is None else layer.scale[begin:end]
    array = layer.array[begin:end]
    return Layer(array, scale, len(array), 0)


def _activations(call: Call, index: int, count: int) -> tuple[str, ...]:
    default = DEFAULTS[call.node.op_type.removeprefix("DynamicQuantize")]
    named = call.node.attributes.get_strings("activations", default * count)
    mine = named[index * len(default) : (index + 1) * len(default)]
    unknown = [name for name in mine if name.lower() not in ACTIVATIONS]
    if unknown or call.node.attributes.get("activation_alpha") is not None:
        raise call.unsupported(f"its gates use {', '.join(unknown) or 'scaled activations'}")
    return tuple(ACTIVATIONS[name.lower()] for name in mine)


def _initial(call: Call, data: Tensor, index: int, direction: int, hidden: int) -> Tensor:
    """The state of one direction before the first step [batch, hidden]."""
    shape: Shape = (data.shape[1], hidden)
    if not call.has(index):
        zero = call.number_tensor(0)
        return call.values.add("FILL", [call.values.sizes(shape), zero], shape, FLOAT)
    batch_first = bool(call.node.attributes.get_int("layout", 0))
    given = call.tensor(index, (1, 0, 2) if batch_first else None)
    if given.shape[0] == 1:
        return call.values.reshape(given, shape)
    return row_at(call.values, given, call.values.integers(direction))


def _run(
    call: Call, data: Tensor, direction: Direction, cell: Cell, first: State
) -> tuple[Tensor, State]:
    """All steps of one direction: outputs [sequence, batch, hidden] and the last state."""
    weight = layer_tensor(call, direction.weight, 0)
    shape = (*data.shape[:-1], direction.weight.channels)
    options = schema.FullyConnectedOptionsT(keepNumDims=True)
    inputs = [data, weight, bias_tensor(call, _input_bias(call, direction), data, weight)]
    products = call.emit("FULLY_CONNECTED", inputs, shape, options=options)
    length = data.shape[0]
    if isinstance(length, int) and length <= LONGEST_UNROLLED:
        return _unrolled(call, products, length, direction, cell, first)
    return _looped(call, products, length, direction, cell, first)


def _unrolled(
    call: Call, products: Tensor, length: int, direction: Direction, cell: Cell, state: State
) -> tuple[Tensor, State]:
    outputs = []
    order = range(length - 1, -1, -1) if direction.backwards else range(length)
    for number in order:
        state = cell(call, _step(call, products, number), state)
        outputs.append(state[0])
    outputs = outputs[::-1] if direction.backwards else outputs
    rows = [call.values.reshape(row, (1, *row.shape)) for row in outputs]
    if len(rows) == 1:
        return rows[0], state
    options = schema.ConcatenationOptionsT(axis=0)
    return call.emit("CONCATENATION", rows, (length, *rows[0].shape[1:]), options=options), state


def _step(call: Call, products: Tensor, number: int) -> Tensor:
    """One step of all: by an operator that XNNPACK knows, so that all steps stay with it."""
    values, rest = call.values, (0, 0)
    bounds = [values.integers(item) for item in ((number, *rest), (number + 1, *rest), (1, 1, 1))]
    options = schema.StridedSliceOptionsT(beginMask=6, endMask=6)
    shape = products.shape[1:]
    row = call.emit("STRIDED_SLICE", [products, *bounds], (1, *shape), options=options)
    return values.reshape(row, shape)


def _looped(
    call: Call, products: Tensor, length: Size, direction: Direction, cell: Cell, first: State
) -> tuple[Tensor, State]:
    def run(values: Values, number: Tensor, state: State, given: list[Tensor]) -> Step:
        (rows,) = given
        state = cell(call.within(values), row_at(values, rows, number), state)
        return Step(state, [state[0]])

    given = _reversed(call, products) if direction.backwards else products
    state, (outputs,) = repeat(call, length, first, run, given=[given])
    return _reversed(call, outputs) if direction.backwards else outputs, state


def _reversed(call: Call, sequence: Tensor) -> Tensor:
    return call.emit("REVERSE_V2", [sequence, call.values.integers([0])])


def _give(call: Call, outputs: list[Tensor], last: list[State], batch_first: bool) -> None:
    """The results: all steps, and the last states, each with an axis for the direction."""
    values = call.values
    steps = [values.reshape(output, (output.shape[0], 1, *output.shape[1:])) for output in outputs]
    call.give(_joined(call, steps, 1), (1, 2, 0, 3) if batch_first else None)
    for index in range(len(last[0])):
        if len(call.node.outputs) <= 1 + index:
            break
        states = [values.reshape(state[index], (1, *state[index].shape)) for state in last]
        call.give(_joined(call, states, 0), (1, 0, 2) if batch_first else None, 1 + index)


def _joined(call: Call, parts: list[Tensor], axis: int) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    shape = (*parts[0].shape[:axis], len(parts), *parts[0].shape[axis + 1 :])
    options = schema.ConcatenationOptionsT(axis=axis)
    return call.emit("CONCATENATION", parts, shape, options=options)


def _input_bias(call: Call, direction: Direction) -> Array:
    """The bias that joins the product with the inputs: all of it that is not reset."""
    own, recurrent = direction.bias
    if call.node.op_type != "GRU" or not call.node.attributes.get_int("linear_before_reset", 0):
        return np.asarray(own + recurrent, np.float32)
    mask = np.ones_like(own)
    mask[2 * direction.hidden :] = 0
    return np.asarray(own + recurrent * mask, np.float32)


def _recurrence(call: Call, layer: Layer, state: Tensor, bias: Array | None = None) -> Tensor:
    """The product of a state with a weight [outputs, hidden]."""
    weight = layer_tensor(call, layer, 0)
    inputs = [state, weight, bias_tensor(call, bias, state, weight)]
    options = schema.FullyConnectedOptionsT(keepNumDims=True)
    return call.emit("FULLY_CONNECTED", inputs, (state.shape[0], layer.channels), options=options)


def _parts(call: Call, gates: Tensor, count: int) -> list[Tensor]:
    """The gates side by side, apart."""
    shape = (gates.shape[0], (gates.shape[1] if isinstance(gates.shape[1], int) else 0) // count)
    parts = [Tensor(call.values.scope, FLOAT, shape) for _ in range(count)]
    options = schema.SplitOptionsT(numSplits=count)
    call.values.graph.emit("SPLIT", [call.values.integers(1), gates], parts, options)
    return parts


def _lstm(call: Call, direction: Direction) -> Cell:
    gate, inner, outer = direction.activations
    peephole = direction.peephole

    def cell(at: Call, product: Tensor, state: State) -> State:
        m, (hidden, memory) = Math(at), state
        total = m.add(product, _recurrence(at, direction.recurrence, hidden))
        i, o, f, c = _parts(at, total, 4)
        if peephole is not None:
            pi, _, pf = (at.values.graph.constant(row) for row in peephole)
            i, f = m.add(i, m.mul(memory, pi)), m.add(f, m.mul(memory, pf))
        kept = m.mul(m.unary(gate, f), memory)
        memory = m.add(kept, m.mul(m.unary(gate, i), m.unary(inner, c)))
        if peephole is not None:
            o = m.add(o, m.mul(memory, at.values.graph.constant(peephole[1])))
        return [m.mul(m.unary(gate, o), m.unary(outer, memory)), memory]

    return cell


def _gru(call: Call, direction: Direction) -> Cell:
    gate, inner = direction.activations
    size = direction.hidden
    after = bool(call.node.attributes.get_int("linear_before_reset", 0))

    def cell(at: Call, product: Tensor, state: State) -> State:
        m, (hidden,) = Math(at), state
        zr = _recurrence(at, _rows(direction.recurrence, 0, 2 * size), hidden)
        z_in, r_in, h_in = _parts(at, product, 3)
        z_state, r_state = _parts(at, zr, 2)
        z, r = m.unary(gate, m.add(z_in, z_state)), m.unary(gate, m.add(r_in, r_state))
        candidate = _rows(direction.recurrence, 2 * size)
        if after:
            bias = np.asarray(direction.bias[1, 2 * size :], np.float32)
            reset = m.mul(r, _recurrence(at, candidate, hidden, bias))
        else:
            reset = _recurrence(at, candidate, m.mul(r, hidden))
        h = m.unary(inner, m.add(h_in, reset))
        return [m.add(h, m.mul(z, m.sub(hidden, h)))]

    return cell


def _rnn(call: Call, direction: Direction) -> Cell:
    def cell(at: Call, product: Tensor, state: State) -> State:
        m = Math(at)
        total = m.add(product, _recurrence(at, direction.recurrence, state[0]))
        return [m.unary(direction.activations[0], total)]

    return cell


CELLS: dict[str, Callable[[Call, Direction], Cell]] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}
