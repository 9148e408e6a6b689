"""The walk over the nodes of one graph, each handed to its lowering."""

from __future__ import annotations

import onnx_ir as ir

from converters.litert.call import ENGINE, LOWERINGS, REMEDY, Call, Weights
from converters.litert.symbolic import evaluate
from converters.litert.values import Held, Values, narrowed
from converters.passes.graph_tools import constant
from edge_sdk.errors import ConversionError, UnsupportedOperatorError


def lower_nodes(graph: ir.Graph, values: Values, weights: Weights) -> None:
    """Lowers the initializers and nodes of one graph, in order."""
    for value in graph.initializers.values():
        if value.uses() or value.is_graph_output():
            _add_constant(value, values)
    done: set[ir.Node] = set()
    for node in graph:
        if node in done:
            continue
        values.scope = str(node.outputs[0].name)
        if node.op_type == "Constant" and not node.domain:
            _add_constant(node.outputs[0], values)
            continue
        call = Call(node, values, weights, done)
        known = evaluate(call)
        if known is not None:
            values[call.output] = known
            continue
        lowering = LOWERINGS.get((node.domain, node.op_type))
        if lowering is None:
            raise UnsupportedOperatorError(
                f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
                node.name or values.scope,
                engine=ENGINE,
                reason="no lowering of it is known",
                remedy=REMEDY,
            )
        lowering(call)
        _check_results(call, values)


def _check_results(call: Call, values: Values) -> None:
    for index, output in enumerate(call.node.outputs):
        wanted = output.uses() or output.is_graph_output()
        if wanted and output not in values and not call.absorbed(output):
            raise call.unsupported(f"its result number {index + 1} has no form there")


def _add_constant(value: ir.Value, values: Values) -> None:
    # A default for an input is as good as a constant: the file has no such input.
    array = constant(value) if value.const_value is None else value.const_value.numpy()
    if array is None or value.dtype == ir.DataType.STRING:
        return  # whoever needs it says so
    inside = narrowed(array)
    if inside is None:
        raise ConversionError(
            f"it has integers past 32 bits, which {ENGINE} lacks",
            where=f"constant {value.name!r}",
            remedy=REMEDY,
        )
    values[value] = Held(array.shape, array=inside)
