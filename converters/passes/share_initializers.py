"""Initializers with equal type, shape and bytes become one, across all graphs of a model.

Branches of an ``If`` often carry the same weights twice; exporters repeat tied
tables. What several graphs use moves to the main graph, where every subgraph can
capture it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable

import numpy as np
import onnx_ir as ir

from converters.passes.base import GraphPass, Options, each_graph
from converters.passes.graph_tools import Editor, constant, tensor_of


class ShareInitializersOptions(Options, frozen=True, kw_only=True):
    """Options of :class:`ShareInitializers`.

    Attributes:
        min_bytes: Smaller initializers are not worth sharing.
    """

    min_bytes: int = 1024


class ShareInitializers(GraphPass):
    """Stores equal weights once."""

    name = "share-initializers"
    options_type = ShareInitializersOptions

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Runs the pass over all graphs at once."""
        alike: dict[Hashable, list[ir.Value]] = defaultdict(list)
        for graph in each_graph(model.graph):
            for value in graph.initializers.values():
                tensor = tensor_of(value)
                if tensor is None or value.is_graph_output():
                    continue
                if tensor.dtype != ir.DataType.STRING and tensor.nbytes >= self.options.min_bytes:
                    alike[tensor.dtype, tuple(tensor.shape.numpy())].append(value)
        editor = Editor(model.graph, model)
        changes = 0
        for values in alike.values():
            for equal in _equal(values):
                changes += _share(equal, editor)
        return ir.passes.PassResult(model, modified=changes > 0)


def _equal(values: list[ir.Value]) -> list[list[ir.Value]]:
    """Groups values of one type and shape by content; a lone one is not even read."""
    if len(values) < 2:
        return []
    groups: dict[bytes, list[ir.Value]] = defaultdict(list)
    for value in values:
        array = constant(value)
        assert array is not None
        raw = np.asarray(array, order="C").reshape(-1).view(np.uint8)
        groups[hashlib.sha256(raw.data).digest()].append(value)
    return [group for group in groups.values() if len(group) > 1]


def _share(values: list[ir.Value], editor: Editor) -> int:
    """Replaces all values by one that the main graph owns."""
    main = editor.graph
    kept = next((value for value in values if value.graph is main), None)
    if kept is None and len({value.graph for value in values}) == 1:
        kept = values[0]
    if kept is None:
        array = constant(values[0])
        assert array is not None
        kept = editor.initializer(values[0].name or "shared", array)
    for value in values:
        if value is not kept and isinstance(value.graph, ir.Graph):
            value.replace_all_uses_with(kept)
            del value.graph.initializers[value.name or ""]
    return 1
