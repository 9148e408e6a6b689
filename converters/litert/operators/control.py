"""``If``, ``Loop`` and ``Scan``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from converters.litert.call import Call, lowers
from converters.litert.loops import (
    Step,
    captured,
    repeat,
    results,
    row_at,
    share_constants,
    take_over,
)
from converters.litert.subgraph import Subgraph
from converters.litert.tensors import Shape, Tensor
from converters.litert.values import Held, Values, hold
from converters.litert.walk import lower_nodes


@lowers("If")
def _if(call: Call) -> None:
    outer, node = call.values, call.node
    branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    chosen = call.constant(0)
    if chosen is not None:
        branch = branches[0 if chosen.any() else 1]
        lower_nodes(branch, outer, call.weights)
        for output, value in zip(node.outputs, branch.outputs, strict=True):
            outer[output] = outer[value]
        return
    used = captured(branches)
    inner = []
    for branch in branches:
        values = Values(Subgraph(f"{outer.scope}_{branch.name}"), outer)
        varying = share_constants(outer, values, used)
        for value in varying:
            take_over(values, value, outer.form(outer[value]))
        lower_nodes(branch, values, call.weights)
        values.graph.outputs = results(values, branch.outputs)
        inner.append(values.graph)
    pairs = list(zip(*(graph.outputs for graph in inner), strict=True))
    if any(a.rank != b.rank or a.dtype != b.dtype for a, b in pairs):
        raise call.unsupported(
            "its branches give values of different rank or type",
            "export it with what that depends on fixed: an input's size, or (--fix) a scalar input",
        )
    outputs = [
        Tensor(str(output.name), a.dtype, _either(a, b))
        for output, (a, b) in zip(node.outputs, pairs, strict=True)
    ]
    condition = outer.reshape(call.tensor(0), ())
    inputs = [condition, *(outer.form(outer[value]) for value in varying)]
    options = schema.IfOptionsT(*(outer.graphs.index(graph) for graph in inner))
    outer.graph.emit("IF", inputs, outputs, options)
    for index, tensor in enumerate(outputs):
        call.give(tensor, index=index)


def _either(a: Tensor, b: Tensor) -> Shape:
    return tuple(x if x == y else None for x, y in zip(a.shape, b.shape, strict=True))


@lowers("Loop")
def _loop(call: Call) -> None:
    body = call.node.attributes["body"].as_graph()
    limit = call.number(0)
    endless = not call.has(0) or (limit is not None and limit >= 2**31 - 1)
    carried = len(body.inputs) - 2
    if endless and len(body.outputs) > 1 + carried:
        raise call.unsupported("it collects results without a largest number of runs")
    count = call.values.integers(2**31 - 1) if endless else call.values.reshape(call.tensor(0), ())
    first = [call.tensor(2 + index) for index in range(carried)]

    def run(values: Values, number: Tensor, state: list[Tensor], _: list[Tensor]) -> Step:
        values[body.inputs[0]] = hold(number)
        values[body.inputs[1]] = Held((), array=np.array(True))
        found = _run(call, body, values, body.inputs[2:], state)
        always = values.form(values[body.outputs[0]]) is values.form(values[body.inputs[1]])
        return Step(found[1 : 1 + carried], found[1 + carried :], None if always else found[0])

    goes_on = call.tensor(1) if call.has(1) else None
    found = repeat(call, count, first, run, used=captured([body]), goes_on=goes_on)
    _give(call, *found)


@lowers("Scan")
def _scan(call: Call) -> None:
    attributes = call.node.attributes
    body = attributes["body"].as_graph()
    scanned = attributes.get_int("num_scan_inputs", 0)
    sides = [
        f"scan_{side}_{what}" for side in ("input", "output") for what in ("axes", "directions")
    ]
    if any(any(attributes.get_ints(name, ())) for name in sides):
        raise call.unsupported("it scans backwards, or along another axis than the first")
    carried = len(body.inputs) - scanned
    sequences = [call.tensor(carried + index) for index in range(scanned)]
    first = [call.tensor(index) for index in range(carried)]

    def run(values: Values, number: Tensor, state: list[Tensor], given: list[Tensor]) -> Step:
        rows = [row_at(values, sequence, number) for sequence in given]
        found = _run(call, body, values, body.inputs, [*state, *rows])
        return Step(found[:carried], found[carried:])

    count = sequences[0].shape[0]
    _give(call, *repeat(call, count, first, run, given=sequences, used=captured([body])))


def _run(
    call: Call,
    body: ir.Graph,
    values: Values,
    inputs: Sequence[ir.Value],
    tensors: Sequence[Tensor],
) -> list[Tensor]:
    """Lowers the nodes of a body whose inputs are these tensors."""
    for value, tensor in zip(inputs, tensors, strict=True):
        values[value] = hold(tensor)
    lower_nodes(body, values, call.weights)
    return [values.form(values[value]) for value in body.outputs]


def _give(call: Call, carried: list[Tensor], collected: list[Tensor]) -> None:
    for index, tensor in enumerate([*carried, *collected]):
        call.give(tensor, index=index)
