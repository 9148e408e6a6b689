"""Graphs that operators call: branches, and bodies that run again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from converters.litert.call import Call
from converters.litert.subgraph import Subgraph
from converters.litert.tensors import BOOL, INT32, Shape, Size, Tensor
from converters.litert.values import Held, Values, hold
from converters.passes.graph_tools import subgraphs


@dataclass
class Step:
    """What one run of a body gives.

    Attributes:
        carried: The new values of what is carried from run to run.
        collected: One element of each result that is collected.
        goes_on: Whether another run may follow; ``None`` for always.
    """

    carried: list[Tensor]
    collected: list[Tensor] = field(default_factory=list)
    goes_on: Tensor | None = None


# Called with the body's values, the number of the run, what is carried, and what is given.
Body = Callable[[Values, Tensor, list[Tensor], list[Tensor]], Step]


def repeat(
    call: Call,
    count: Size | Tensor,
    carried: Sequence[Tensor],
    body: Body,
    *,
    given: Sequence[Tensor] = (),
    used: Sequence[ir.Value] = (),
    goes_on: Tensor | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Runs a body ``count`` times, or until it says otherwise.

    Args:
        call: The node.
        count: How often: a number, the name of a size, or a scalar.
        carried: What is carried from run to run, as it is at first.
        body: Lowers one run.
        given: What every run reads.
        used: Values from around the body that it reads.
        goes_on: Whether there is a first run.

    Returns:
        What is carried, at the end; and what was collected, along a new first axis.
    """
    outer = call.values
    times = count if isinstance(count, Tensor) else outer.reshape(outer.sizes((count,)), ())
    values = Values(Subgraph(f"{outer.scope}_body"), outer)
    number, limit, more = (_input(values, t) for t in _scalars())
    inside = [_input(values, tensor) for tensor in carried]
    read = [_input(values, tensor) for tensor in given]
    varying = share_constants(outer, values, used)
    around = [outer.form(outer[value]) for value in varying]
    read_around = [
        take_over(values, value, tensor) for value, tensor in zip(varying, around, strict=True)
    ]
    step = body(values, number, inside, read)
    buffers = [_buffer(call, count, element) for element in step.collected]
    stores = [_input(values, buffer) for buffer in buffers]
    filled = [
        _stored(values, store, element, number)
        for store, element in zip(stores, step.collected, strict=True)
    ]
    following = values.add("ADD", [number, values.integers(1)], (), INT32, schema.AddOptionsT())
    again = more if step.goes_on is None else values.reshape(step.goes_on, ())
    kept = [*read, *read_around]
    own = _own(values, [following, limit, again, *step.carried, *filled])
    values.graph.outputs = own[: 3 + len(carried)] + kept + own[3 + len(carried) :]
    condition = _condition(outer, values.graph.inputs)
    first = outer.graph.constant(np.array(True)) if goes_on is None else outer.reshape(goes_on, ())
    inputs = [outer.integers(0), times, first, *carried, *given, *around, *buffers]
    outputs = [
        Tensor(f"{outer.scope}_{at}", tensor.dtype, _common(tensor, given))
        for at, (tensor, given) in enumerate(zip(values.graph.outputs, inputs, strict=True))
    ]
    options = schema.WhileOptionsT(outer.graphs.index(condition), outer.graphs.index(values.graph))
    outer.graph.emit("WHILE", inputs, outputs, options)
    results = outputs[3 : 3 + len(carried)]
    collected = outputs[len(outputs) - len(buffers) :]
    if step.goes_on is not None or isinstance(count, Tensor):
        collected = [_beginning(call, buffer, outputs[0]) for buffer in collected]
    return results, collected


def captured(graphs: Sequence[ir.Graph]) -> list[ir.Value]:
    """What graphs use from around them, in order of use."""
    found: dict[ir.Value, None] = {}
    for graph in graphs:
        own = {*graph.inputs, *graph.initializers.values()}
        for node in graph:
            inner = captured(subgraphs(node))
            own.update(node.outputs)
            used = [value for value in (*node.inputs, *inner) if value is not None]
            found.update((value, None) for value in used if value not in own)
        found.update((value, None) for value in graph.outputs if value not in own)
    return list(found)


def share_constants(outer: Values, inner: Values, used: Sequence[ir.Value]) -> list[ir.Value]:
    """Hands constants on to an inner graph; returns what must be handed over at run time."""
    varying = []
    for value in used:
        held = outer[value]
        if held.is_constant:
            inner[value] = Held(held.shape, array=held.array, codes=held.codes)
        else:
            varying.append(value)
    return varying


def take_over(inner: Values, value: ir.Value, tensor: Tensor) -> Tensor:
    """A new input of an inner graph that stands for ``value``, which is ``tensor`` outside."""
    given = _input(inner, tensor)
    inner[value] = hold(given)
    return given


def row_at(values: Values, sequence: Tensor, number: Tensor) -> Tensor:
    """One element of a sequence along its first axis."""
    options = schema.GatherOptionsT()
    inputs = [sequence, number]
    return values.add("GATHER", inputs, sequence.shape[1:], sequence.dtype, options)


def results(values: Values, outputs: Sequence[ir.Value]) -> list[Tensor]:
    """Tensors with the results of a graph, each its own."""
    return _own(values, [values.form(values[value]) for value in outputs])


def _scalars() -> list[Tensor]:
    return [Tensor("number", INT32, ()), Tensor("limit", INT32, ()), Tensor("more", BOOL, ())]


def _input(values: Values, like: Tensor) -> Tensor:
    tensor = Tensor(like.name, like.dtype, like.shape, like.quantization)
    values.graph.inputs.append(tensor)
    values.name_sizes(tensor)
    return tensor


def _own(values: Values, tensors: list[Tensor]) -> list[Tensor]:
    """The tensors, copied where one is constant or there already."""
    found: list[Tensor] = []
    for tensor in tensors:
        alone = tensor.data is None and tensor not in found
        found.append(tensor if alone else values.copy(tensor))
    return found


def _buffer(call: Call, count: Size | Tensor, element: Tensor) -> Tensor:
    """Room for one element per run."""
    values = call.values
    if any(isinstance(size, str) and size not in values.named for size in element.shape):
        raise call.unsupported("it collects values of a size known only inside its body")
    zero = values.graph.constant(np.zeros((), element.dtype))
    if isinstance(count, Tensor):
        # A body is prepared even if it never runs: there must be room for one element.
        room = values.add("MAXIMUM", [count, values.integers(1)], (), INT32)
        sizes = [values.reshape(room, (1,))]
        if element.shape:
            sizes.append(values.sizes(element.shape))
        shape: Shape = (None, *element.shape)
        return values.add("FILL", [values.joined(sizes), zero], shape, element.dtype)
    shape = (count, *element.shape)
    return values.add("FILL", [values.sizes(shape), zero], shape, element.dtype)


def _stored(values: Values, buffer: Tensor, element: Tensor, number: Tensor) -> Tensor:
    """The buffer with one more element."""
    begin = [values.reshape(number, (1,))]
    if element.shape:
        begin.append(values.integers([0] * element.rank))
    row = values.reshape(element, (1, *element.shape))
    inputs = [buffer, row, values.joined(begin)]
    return values.add("DYNAMIC_UPDATE_SLICE", inputs, buffer.shape, buffer.dtype)


def _condition(outer: Values, inputs: Sequence[Tensor]) -> Subgraph:
    values = Values(Subgraph(f"{outer.scope}_condition"), outer)
    given = [_input(values, tensor) for tensor in inputs]
    below = values.add("LESS", given[:2], (), BOOL)
    values.graph.outputs = [values.add("LOGICAL_AND", [below, given[2]], (), BOOL)]
    return values.graph


def _common(result: Tensor, given: Tensor) -> Shape:
    """The shape at the end, where it is the one at the beginning."""
    if result.rank != given.rank:
        return result.shape
    return tuple(a if a == b else None for a, b in zip(result.shape, given.shape, strict=True))


def _beginning(call: Call, buffer: Tensor, count: Tensor) -> Tensor:
    """The first ``count`` elements of a buffer."""
    values = call.values
    end = [values.reshape(count, (1,))]
    if buffer.rank > 1:
        end.append(values.integers([0] * (buffer.rank - 1)))
    mask = (1 << buffer.rank) - 2
    bounds = [values.integers([0] * buffer.rank), values.joined(end)]
    options = schema.StridedSliceOptionsT(beginMask=mask, endMask=mask)
    inputs = [buffer, *bounds, values.integers([1] * buffer.rank)]
    return call.emit("STRIDED_SLICE", inputs, (None, *buffer.shape[1:]), options=options)
