"""Values that a ``Loop`` hands from run to run without ever changing them.

Exporters carry a recurrent layer's weights so. Inside the body they then look
computed, and no pass would quantize them. As values of the graph around the
loop, which a body may use, they are constants again.
"""

from __future__ import annotations

from collections.abc import MutableSequence

import onnx_ir as ir

from converters.passes.graph_tools import Editor, is_op

# A Loop has two inputs before the carried values, its body two and one output.
BEFORE_INPUTS, BEFORE_OUTPUTS = 2, 1


def take_out(graph: ir.Graph, model: ir.Model) -> int:
    """Lets bodies use such values where they come from; how many were carried."""
    return sum(_take_out(node, Editor(graph, model)) for node in list(graph) if is_op(node, "Loop"))


def _take_out(loop: ir.Node, editor: Editor) -> int:
    body = loop.attributes["body"].as_graph()
    carried = range(len(loop.inputs) - BEFORE_INPUTS)
    same = {index for index in carried if _is_unchanged(body, index)}
    if not same:
        return 0
    inner = {index: body.inputs[BEFORE_INPUTS + index] for index in same}
    _without(body.inputs, BEFORE_INPUTS, same)
    _without(body.outputs, BEFORE_OUTPUTS, same)
    for index, value in inner.items():
        origin = loop.inputs[BEFORE_INPUTS + index]
        assert origin is not None
        value.replace_all_uses_with(origin)
        editor.redirect(loop.outputs[index], origin)
    kept = [value for index, value in enumerate(loop.outputs) if index not in same]
    left = ir.node(
        "Loop",
        [v for index, v in enumerate(loop.inputs, -BEFORE_INPUTS) if index not in same],
        {name: a for name, a in loop.attributes.items() if name != "body"},
        name=loop.name,
        outputs=[ir.Value(name=editor.fresh(str(value.name))) for value in kept],
    )
    editor.graph.insert_before(loop, left)
    for old, new in zip(kept, left.outputs, strict=True):
        editor.redirect(old, new)
    editor.graph.remove(loop, safe=True)
    left.attributes["body"] = ir.AttrGraph("body", body)
    return len(same)


def _is_unchanged(body: ir.Graph, index: int) -> bool:
    given, result = body.inputs[BEFORE_INPUTS + index], body.outputs[BEFORE_OUTPUTS + index]
    if result is given:
        return [value is given for value in body.outputs].count(True) == 1
    producer = result.producer()
    if producer is None or producer.graph is not body or not is_op(producer, "Identity"):
        return False
    return producer.inputs[0] is given and not given.is_graph_output()


def _without(values: MutableSequence[ir.Value], before: int, indices: set[int]) -> None:
    kept = [value for index, value in enumerate(values, -before) if index not in indices]
    values.clear()
    values.extend(kept)
