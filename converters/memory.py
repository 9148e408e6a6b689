"""Predicts the peak memory of a variant from its graph, before anything is loaded. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from converters.costs import peak_activations
from converters.materialize import is_external
from converters.passes.base import each_graph
from converters.passes.graph_tools import is_op, tensor_of
from edge_sdk.bundle.record import MemoryPlan

ENGINE_BYTES = 48 << 20
# Weights that ONNX Runtime packs, and so copies, when a session opens: input that holds them.
PACKED = {"MatMul": 1, "Gemm": 1, "Conv": 1, "ConvTranspose": 1, "LSTM": 1, "GRU": 1}
PACKED_CONTRIB = {"MatMulNBits": 1, "DynamicQuantizeMatMul": 1}


def memory_plan(model: ir.Model, dimensions: Mapping[str, int]) -> MemoryPlan:
    """Peak memory of a process that loads and runs a graph with ONNX Runtime on CPU.

    Args:
        model: The graph as it ships; it is not changed.
        dimensions: Symbolic dimension -> value of the call it is predicted for.
    """
    mapped = sum(
        value.const_value.nbytes
        for graph in each_graph(model.graph)
        for value in graph.initializers.values()
        if value.const_value is not None and is_external(value.const_value)
    )
    private = sum(_private_bytes(node) for graph in each_graph(model.graph) for node in graph)
    return MemoryPlan(
        weights_mapped=mapped,
        weights_private=private,
        activations=peak_activations(model, dimensions),
        engine=ENGINE_BYTES,
        reference_shapes=dict(dimensions),
    )


def _private_bytes(node: ir.Node) -> int:
    """Heap copies of weights: packed ones, and constants that are folded when a session opens."""
    given = [tensor_of(value) for value in node.inputs]
    if is_op(node, "Cast", "Mul") and all(given):
        return sum(tensor.nbytes for tensor in given if tensor is not None)
    place = (PACKED if node.domain == "" else PACKED_CONTRIB).get(node.op_type)
    tensor = given[place] if place is not None and len(given) > place else None
    return tensor.nbytes if tensor is not None else 0
