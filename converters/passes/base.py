"""What a graph pass is, and how one is found by name.

A pass is an onnx-ir pass with a name and typed options. A recipe is an ordered
list of pass names with options, so adding a pass is one file and one entry
point of the group ``edge_sdk.passes``:

* it changes what it recognises and leaves everything else alone;
* it never raises for a graph it cannot improve: it records why in the context;
* it visits subgraphs (``If``, ``Loop``, ``Scan``) unless that is unsound for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar

import msgspec
import onnx_ir as ir

from converters.calibration.statistics import Statistics
from edge_sdk.bundle.record import Recipe, Unquantized
from edge_sdk.errors import RecipeError
from edge_sdk.plugins import load_plugin


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of a pass's typed options; every field has a default."""


@dataclass
class Context:
    """What passes of one candidate share.

    Attributes:
        statistics: Activation statistics of the prepared fp32 graph by value name;
            empty when no pass of the recipe needs calibration.
        unquantized: Nodes that passes left in higher precision, with the reason.
        notes: Sentences for the report.
    """

    statistics: Statistics = field(default_factory=Statistics)
    unquantized: list[Unquantized] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def skip(self, node: ir.Node, reason: str) -> None:
        """Records that ``node`` stays in higher precision."""
        self.unquantized.append(Unquantized(node=node.name or "", op=node.op_type, reason=reason))


class GraphPass(ir.passes.InPlacePass):
    """Base of all passes: ``rewrite`` is called for the main graph, then for each subgraph.

    Attributes:
        name: As in recipes.
        options_type: Its typed options.
        needs_statistics: Whether it reads activation statistics.
        is_rewrite: Whether the outputs stay equal but for float rounding. A recipe's
            leading rewrites are applied once, checked for that, and calibrated after.
        in_subgraphs: Whether subgraphs are visited too.
    """

    name: ClassVar[str]
    options_type: ClassVar[type[Options]] = Options
    needs_statistics: ClassVar[bool] = False
    is_rewrite: ClassVar[bool] = True
    in_subgraphs: ClassVar[bool] = True

    def __init__(self, options: Any = None, context: Context | None = None) -> None:
        super().__init__()
        self.options: Any = options if options is not None else self.options_type()
        self.context = context or Context()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Runs the pass over a model; part of the onnx-ir pass protocol."""
        graphs = list(each_graph(model.graph)) if self.in_subgraphs else [model.graph]
        changes = sum(self.rewrite(graph, model) for graph in graphs)
        return ir.passes.PassResult(model, modified=changes > 0)

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Rewrites one graph in place.

        Args:
            graph: The graph to change: the model's own, or a subgraph of one of its nodes.
            model: The model it belongs to (opset imports, functions).

        Returns:
            The number of changes made; 0 means that the graph is untouched.
        """
        raise TypeError(f"{type(self).__name__} defines neither rewrite nor call")


def each_graph(graph: ir.Graph) -> Iterator[ir.Graph]:
    """Yields a graph and, depth first, every subgraph inside it."""
    yield graph
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from each_graph(attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                for subgraph in attribute.as_graphs():
                    yield from each_graph(subgraph)


@cache
def registry() -> Mapping[str, EntryPoint]:
    """All passes installed here by name (entry points ``edge_sdk.passes``), not yet imported."""
    return {entry.name: entry for entry in entry_points(group="edge_sdk.passes")}


def is_rewrite(name: str) -> bool:
    """Whether the pass of that name is registered and keeps outputs equal."""
    entry = registry().get(name)
    return entry is not None and bool(load_plugin(entry, RecipeError).is_rewrite)


def build(recipe: Recipe, context: Context) -> list[GraphPass]:
    """Instantiates the passes of a recipe in order.

    Raises:
        RecipeError: A pass is unknown, or an option has a wrong name, type or value.
    """
    passes = []
    for step in recipe.steps:
        entry = registry().get(step.op)
        if entry is None:
            raise RecipeError(
                f"unknown pass {step.op!r}",
                where=f"recipe {recipe.name!r}",
                remedy=f"use one of: {', '.join(sorted(registry()))}",
            )
        kind: type[GraphPass] = load_plugin(entry, RecipeError)
        try:
            options = msgspec.convert(step.options, kind.options_type)
        except msgspec.ValidationError as error:
            fields = ", ".join(kind.options_type.__struct_fields__)
            raise RecipeError(
                f"pass {step.op!r}: {error}",
                where=f"recipe {recipe.name!r}",
                remedy=f"options of {step.op!r} are: {fields or 'none'}",
            ) from None
        passes.append(kind(options, context))
    return passes
