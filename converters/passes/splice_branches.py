"""``If`` with a constant condition gives way to the branch that always runs.

Passes that leave subgraphs alone, and engines that cannot run them, then see
one flat graph. A model often selects its branch by a scalar input (a sampling
rate); with the user's leave that input is fixed to one value. It stays in the
signature, so callers change nothing, but it is no longer read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec
import numpy as np
import onnx_ir as ir

from converters.passes.base import GraphPass, Options, each_graph
from converters.passes.fold_constants import FoldConstants
from converters.passes.graph_tools import Editor, is_op, prune, scalar, static_shape
from converters.passes.infer_shapes import InferShapes
from edge_sdk.errors import RecipeError


class SpliceBranchesOptions(Options, frozen=True, kw_only=True):
    """Options of :class:`SpliceBranches`.

    Attributes:
        fixed: Scalar graph inputs by name, with the one value they will always have.
    """

    fixed: Mapping[str, float | int | bool] = msgspec.field(default_factory=dict)


class SpliceBranches(GraphPass):
    """Puts the branch of a decided ``If`` in its place."""

    name = "splice-branches"
    options_type = SpliceBranchesOptions

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Runs the pass; folds before and infers shapes after each splice.

        Raises:
            RecipeError: ``fixed`` names something that is not a scalar numeric input.
        """
        changes = _fix(model, self.options.fixed)
        while True:
            changes += FoldConstants(context=self.context)(model).modified
            spliced = sum(_splice_all(graph, model) for graph in each_graph(model.graph))
            if not spliced:
                break
            changes += spliced
            prune(model)
            # What a branch computes has no shape of its own until its If is gone.
            InferShapes()(model)
        return ir.passes.PassResult(model, modified=changes > 0)


def _fix(model: ir.Model, fixed: Mapping[str, float | int | bool]) -> int:
    """Replaces all uses of scalar inputs by constants; the inputs stay."""
    inputs = {value.name: value for value in model.graph.inputs}
    editor = Editor(model.graph, model)
    changes = 0
    for name, number in fixed.items():
        value = inputs.get(name)
        shape = static_shape(value)
        if value is None or value.dtype is None or shape is None or np.prod(shape) != 1:
            raise RecipeError(
                f"{name!r} cannot be fixed: it is not a scalar input",
                where="splice-branches.fixed",
                remedy=f"name one of the model's inputs: {', '.join(str(key) for key in inputs)}",
            )
        if value.uses():
            array = np.full(shape, number, dtype=value.dtype.numpy())
            constant = editor.initializer(f"{name}_fixed", array)
            for use in tuple(value.uses()):
                use.node.replace_input_with(use.idx, constant)
            changes += 1
    return changes


def _splice_all(graph: ir.Graph, model: ir.Model) -> int:
    changes = 0
    for node in graph:
        condition = scalar(node.inputs[0]) if is_op(node, "If") else None
        if condition is not None:
            name = "then_branch" if condition else "else_branch"
            _splice(node, node.attributes[name].as_graph(), Editor(graph, model))
            changes += 1
    return changes


def _splice(node: ir.Node, branch: ir.Graph, editor: Editor) -> None:
    """Moves a branch's nodes and initializers in front of its ``If``, and removes that."""
    _rename(branch, editor)
    results = list(branch.outputs)
    branch.outputs.clear()
    for name, value in list(branch.initializers.items()):
        del branch.initializers[name]
        editor.graph.register_initializer(value)
    nodes = list(branch)
    branch.remove(nodes)
    editor.graph.insert_before(node, nodes)
    for output, result in zip(node.outputs, results, strict=True):
        editor.redirect(output, result)
    editor.prune()


def _rename(branch: ir.Graph, editor: Editor) -> None:
    """Gives a branch's values names of their own: sibling branches may use the same ones."""
    counts = Counter(
        value.name for graph in editor.model.graphs() for node in graph for value in node.outputs
    )
    counts.update(name for graph in editor.model.graphs() for name in graph.initializers)
    own = [value for inner in branch for value in inner.outputs]
    for value in [*branch.initializers.values(), *own]:
        if value.name and counts[value.name] > 1:
            value.name = editor.fresh(value.name)
