"""Predicts the peak memory of a process that loads and runs a ``.tflite`` file. Pure.

LiteRT on CPU with XNNPACK, file opened by path; the prediction is made from the
ONNX graph that the file was lowered from. What was measured:

* every layer's weight is packed to the heap when the file opens, from pages of the
  file that stay resident until all are packed: at that moment it is there twice;
* float16 weights of dense layers are widened first, and the wide copy stays;
* of a table that is looked up, a page per row is resident; one in float16 is widened
  as a whole;
* activations come from one arena, planned ahead, and the delegate's own;
* starting takes more than the started engine keeps: code that only starting ran is
  given back before weights are packed, so the peak of a small model is that of the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import msgspec
import onnx_ir as ir

from converters.costs import live_bytes
from converters.passes.base import each_graph
from converters.passes.graph_tools import producer, static_shape, tensor_of
from converters.shapes import bind
from edge_sdk.bundle.record import MemoryPlan

# Python, numpy, LiteRT and this SDK: at most while they start, with all the code that starting
# them runs, and once that is given back. Then what each node adds. An empty process differs by
# several MB from machine to machine; these suit an x86-64 server.
STARTING_BYTES = 39 << 20
ENGINE_BYTES = 32 << 20
NODE_BYTES = 4 << 10
ARENA_FACTOR = 2
PAGE = 4096
# Operator -> input whose constant is packed.
LAYERS: Mapping[str, int] = {
    "Conv": 1, "ConvTranspose": 1, "DynamicQuantizeMatMul": 1, "Gemm": 1, "MatMul": 1,
}  # fmt: skip
DENSE = ("Gemm", "MatMul")


@dataclass(frozen=True)
class Held:
    """A constant as the file holds it, and as the engine does once it is open.

    Attributes:
        mapped: Bytes of the file that are read.
        private: Bytes of the copies.
    """

    mapped: int
    private: int = 0


def packed(elements: int, stored_bits: int, *, dense: bool) -> Held:
    """A layer's weight: int8 is packed as int8, everything else as float32."""
    wide = elements if stored_bits == 8 else 4 * elements
    copies = 2 if dense and stored_bits == 16 else 1
    return Held(elements * stored_bits // 8, copies * wide)


def looked_up(size: int, stored_bits: int, rows: int) -> Held:
    """A table of which some rows are read; one in float16 is widened as a whole first."""
    return Held(size, 2 * size) if stored_bits == 16 else Held(min(size, rows * PAGE))


def litert_plan(model: ir.Model, dimensions: Mapping[str, int]) -> MemoryPlan:
    """Peak memory of a process that loads what a graph was lowered to and runs it.

    Args:
        model: The graph; it is not changed, and its weights are not read.
        dimensions: Symbolic dimension -> value of the call it is predicted for;
            inputs' dimensions that are not among them count as 1.
    """
    bound = bind(model, dimensions)
    held: dict[ir.Value, Held] = {}
    nodes = 0
    for graph, twin in zip(each_graph(model.graph), each_graph(bound.graph), strict=True):
        for node, sized in zip(graph, twin, strict=True):
            nodes += 1
            for index, value in enumerate(node.inputs):
                found = _held(node, sized, index, value)
                if value is not None and found is not None:
                    held.setdefault(_stored(value), found)
    plan = MemoryPlan(
        weights_mapped=sum(each.mapped for each in held.values()),
        weights_private=sum(each.private for each in held.values()),
        activations=ARENA_FACTOR * live_bytes(bound.graph),
        engine=ENGINE_BYTES + NODE_BYTES * nodes,
        reference_shapes=dict(dimensions),
    )
    return started(plan)


def started(plan: MemoryPlan) -> MemoryPlan:
    """The plan, with a peak that is at least that of starting the engine."""
    missing = max(0, STARTING_BYTES - plan.peak)
    return msgspec.structs.replace(plan, engine=plan.engine + missing)


def _held(node: ir.Node, sized: ir.Node, index: int, value: ir.Value | None) -> Held | None:
    tensor = tensor_of(_stored(value)) if value is not None else None
    if tensor is None or node.op_type in ("Cast", "DequantizeLinear"):
        return None  # counted where it is used
    if tensor.dtype == ir.DataType.STRING:
        return None  # no LiteRT file has such a graph
    bits = int(tensor.dtype.itemsize * 8)
    if LAYERS.get(node.op_type) == index:
        return packed(int(tensor.size), bits, dense=node.op_type in DENSE)
    if node.op_type == "Gather" and index == 0:
        return looked_up(tensor.nbytes, bits, prod(static_shape(sized.inputs[1]) or (1,)))
    return Held(tensor.nbytes)


def _stored(value: ir.Value) -> ir.Value:
    """What the file stores of a constant: codes before their scale, float16 before widening."""
    narrow = producer(value, "DequantizeLinear", "Cast")
    if narrow is None or narrow.inputs[0] is None or tensor_of(narrow.inputs[0]) is None:
        return value
    return narrow.inputs[0]
