"""Cleanup: the normal form that every other pass relies on.

Afterwards the model has no local functions, no ``Constant``, ``Identity`` or
inference ``Dropout`` node that can go, nothing unused, nodes in topological
order, and node and value names that are unique in the whole model. Graph inputs
and outputs keep their names, types and order; of their dimensions, those that are
called ``?`` have no name any more, because engines take equal names for equal sizes.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes import common

from converters.passes import loop_values
from converters.passes.base import GraphPass, Options, each_graph
from converters.passes.graph_tools import Editor, is_op, prune, scalar, tensor_of, unique
from edge_sdk.runtime.inputs import is_name

# The first IR version in which an initializer need not be a graph input as well.
FREE_INITIALIZERS = 4


class CleanupOptions(Options, frozen=True, kw_only=True):
    """Options of :class:`Cleanup`.

    Attributes:
        overridable: Initializers that callers may override, and that therefore
            stay graph inputs; all others become constants.
    """

    overridable: tuple[str, ...] = ()


class Cleanup(GraphPass):
    """Brings a model into normal form; the first pass of every recipe."""

    name = "cleanup"
    options_type = CleanupOptions

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Runs the pass; a second run changes nothing."""
        changes = self._inline(model) + _drop_default_inputs(model, self.options.overridable)
        order = [node for graph in each_graph(model.graph) for node in graph]
        model.graph.sort()
        changes += order != [node for graph in each_graph(model.graph) for node in graph]
        for graph in each_graph(model.graph):
            changes += loop_values.take_out(graph, model) + _simplify(graph, model)
        before = _size(model)
        prune(model)
        changes += before - _size(model)
        changes += _unique_names(model.graph) + _strip_annotations(model)
        changes += _unname_dimensions(model.graph)
        changes += common.RemoveUnusedOpsetsPass()(model).modified
        return ir.passes.PassResult(model, modified=changes > 0)

    def _inline(self, model: ir.Model) -> int:
        """Inlines local functions, except those that hand an input straight through.

        The library's inliner would rename that input, which may be the model's own.
        """
        if not model.functions:
            return 0
        before = len(model.functions)
        try:
            common.InlinePass(lambda function: not set(function.outputs) & set(function.inputs))(
                model
            )
        except (ir.passes.PreconditionError, ValueError) as error:
            self.context.notes.append(f"local functions stay as they are: {error}")
        common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
        return before - len(model.functions)


def _unname_dimensions(graph: ir.Graph) -> int:
    """Takes away what exporters write in place of a name: ``?`` and the like."""
    changes = 0
    for value in (*graph.inputs, *graph.outputs):
        unnamed = {axis for axis, size in enumerate(value.shape or ()) if _is_unnamed(size)}
        if value.shape is not None and unnamed:  # the shape that a file says cannot be changed
            sizes = enumerate(value.shape)
            value.shape = ir.Shape([None if axis in unnamed else size for axis, size in sizes])
            changes += len(unnamed)
    return changes


def _is_unnamed(size: int | ir.SymbolicDim) -> bool:
    return isinstance(size, ir.SymbolicDim) and bool(size.value) and not is_name(str(size.value))


def _drop_default_inputs(model: ir.Model, overridable: tuple[str, ...]) -> int:
    """Takes initializers out of the main graph's inputs, where old exporters listed them all."""
    graph = model.graph
    kept = [
        value for value in graph.inputs if not value.is_initializer() or value.name in overridable
    ]
    dropped = len(graph.inputs) - len(kept)
    if dropped:
        graph.inputs.clear()
        graph.inputs.extend(kept)
        model.ir_version = max(model.ir_version or 0, FREE_INITIALIZERS)
    return dropped


def _size(model: ir.Model) -> int:
    """Nodes and initializers in all graphs."""
    return sum(len(graph) + len(graph.initializers) for graph in each_graph(model.graph))


def _simplify(graph: ir.Graph, model: ir.Model) -> int:
    """Turns ``Constant`` nodes into initializers and bypasses nodes that do nothing."""
    editor = Editor(graph, model)
    changes = 0
    for node in graph:
        output = node.outputs[0] if node.outputs else None
        if output is None:
            continue
        if is_op(node, "Constant"):
            tensor = tensor_of(output)
            if tensor is not None and not output.is_graph_output():
                editor.freeze(output, tensor)
                graph.remove(node, safe=True)
                changes += 1
        elif _does_nothing(node) and not _anchors_output(node):
            source = node.inputs[0]
            assert source is not None
            editor.redirect(output, source)
            graph.remove(node, safe=True)
            changes += 1
    return changes


def _does_nothing(node: ir.Node) -> bool:
    """Whether the node's first output is its first input at inference."""
    if not node.inputs or node.inputs[0] is None:
        return False
    source, output = node.inputs[0], node.outputs[0]
    if is_op(node, "Identity"):
        return True
    if is_op(node, "Cast"):
        return source.dtype is not None and source.dtype == output.dtype
    if not is_op(node, "Dropout") or any(mask.uses() for mask in node.outputs[1:]):
        return False
    if any(mask.is_graph_output() for mask in node.outputs[1:]):
        return False
    # Up to opset 11 Dropout has no training input; from 12 an absent one means inference.
    return len(node.inputs) < 3 or node.inputs[2] is None or scalar(node.inputs[2]) == 0


def _anchors_output(node: ir.Node) -> bool:
    """Whether the node is needed to give a graph output a value of its own in this graph."""
    output, source = node.outputs[0], node.inputs[0]
    if source is None or not output.is_graph_output():
        return False
    local = source.producer() is not None and source.graph is node.graph
    return not local or source.is_graph_output()


def _unique_names(graph: ir.Graph) -> int:
    """Gives every node a name, and every node and value a name that nothing else has."""
    values: set[str] = {value.name or "" for value in (*graph.inputs, *graph.outputs)}
    nodes: set[str] = set()
    fixed = set(graph.inputs) | set(graph.outputs)
    changes = 0
    for inner in each_graph(graph):
        for value in _values_of(inner):
            if value in fixed or not value.name:
                continue
            name = unique(value.name, values)
            if name != value.name:
                value.name = name
                changes += 1
    for inner in each_graph(graph):
        for node in inner:
            wanted = node.name or next(
                (output.name for output in node.outputs if output.name), node.op_type
            )
            name = unique(wanted, nodes)
            changes += name != node.name
            node.name = name
    return changes


def _values_of(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from list(graph.inputs)
    yield from (value for value in list(graph.initializers.values()) if value not in graph.inputs)
    for node in graph:
        yield from node.outputs


def _strip_annotations(model: ir.Model) -> int:
    """Clears documentation and metadata inside the graph: exporters put stack traces there.

    The model's own metadata properties are its author's words, and stay.
    """
    changes = 0

    def strip(item: ir.Graph | ir.Node | ir.Value) -> None:
        nonlocal changes
        changes += bool(item.doc_string or item.metadata_props)
        item.doc_string = None
        item.metadata_props.clear()

    for graph in each_graph(model.graph):
        strip(graph)
        for value in _values_of(graph):
            strip(value)
        for node in graph:
            strip(node)
    changes += bool(model.doc_string)
    model.doc_string = None
    return changes
