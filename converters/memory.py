"""Predicts the peak memory of a process that loads and runs a graph. Pure: nothing is opened.

ONNX Runtime's CPU provider, graph opened by path with its weights in external
files. What it does with them was measured; ``python -m benchmarks fit`` says how
far the prediction is off:

* a weight of a dense layer is copied to the heap in packed form, and its mapping
  is then dropped; the largest one exists in both forms for a moment;
* constants that are computed from constants (``store-small``) are computed when
  the session opens; all intermediate results are alive at once, and what is freed
  of them stays in the process's heap;
* of a table that is looked up, only the neighbourhood of the rows read is resident;
* activations come from an arena that grows in powers of two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
import onnx_ir as ir

from converters.costs import live_bytes
from converters.materialize import is_external
from converters.memory_litert import litert_plan
from converters.passes.base import each_graph
from converters.passes.graph_tools import nbytes, producer, static_shape, subgraphs, tensor_of
from converters.passes.store_small import RECURRENT
from converters.shapes import bind
from converters.workshop import Built
from edge_sdk.bundle.record import MemoryPlan

# Python, numpy, ONNX Runtime, this SDK and an empty session; then what each node adds. An empty
# process differs by several MB from machine to machine; this suits an x86-64 server.
ENGINE_BYTES = 57 << 20
NODE_BYTES = 9 << 10
# The tokenizers library, with a vocabulary of 30 thousand entries.
TEXT_BYTES = 10 << 20
# Fixed part of the arena, and how much larger than the live activations it grows.
ARENA_BYTES = 3 << 19
ARENA_FACTOR = 3.0
# Reading one row of a mapped table brings in about this much around it.
LOOKUP_BYTES = 512 << 10
# A float convolution's weight is laid out anew, and most of what that frees stays in the heap.
CONV_COPIES = 1.75
# Operator -> inputs whose constant weights are packed.
PACKED: Mapping[str, tuple[int, ...]] = {
    "Conv": (1,), "ConvInteger": (1,), "ConvTranspose": (1,), "DynamicQuantizeMatMul": (1,),
    "GRU": (1, 2), "Gemm": (1,), "LSTM": (1, 2), "MatMul": (1,), "MatMulInteger": (1,),
    "MatMulIntegerToFloat": (1,), "MatMulNBits": (1, 2), "QLinearConv": (3,), "QLinearMatMul": (3,),
    "RNN": (1, 2),
}  # fmt: skip


def memory_plan(model: ir.Model, dimensions: Mapping[str, int]) -> MemoryPlan:
    """Peak memory of a process that loads a graph with ONNX Runtime on CPU and runs it.

    Args:
        model: The graph as it ships; it is not changed, and its weights are not read.
        dimensions: Symbolic dimension -> value of the call it is predicted for;
            inputs' dimensions that are not among them count as 1.
    """
    bound = bind(model, dimensions)
    weights = _Weights()
    nodes = 0
    for graph, twin in zip(each_graph(model.graph), each_graph(bound.graph), strict=True):
        for node, sized in zip(graph, twin, strict=True):
            weights.visit(node, sized)
            nodes += 1
    activations = ARENA_BYTES + int(ARENA_FACTOR * live_bytes(bound.graph))
    mapped = sum(
        min(value.const_value.nbytes, weights.touched.get(value, value.const_value.nbytes))
        for graph in each_graph(model.graph)
        for value in graph.initializers.values()
        if value.const_value is not None
        and is_external(value.const_value)
        and value not in weights.released
    )
    return MemoryPlan(
        # While the largest weight is packed there are no activations yet.
        weights_mapped=max(mapped, weights.largest_released - activations),
        weights_private=sum(weights.packed.values()) + weights.folded,
        activations=activations,
        engine=ENGINE_BYTES + NODE_BYTES * nodes,
        reference_shapes=dict(dimensions),
    )


def candidate_plan(
    built: Built, dimensions: Mapping[str, int], *, text: bool = False
) -> MemoryPlan:
    """Peak memory of a process that loads a candidate with its engine and runs it.

    Args:
        built: The candidate.
        dimensions: Symbolic dimension -> value of the call it is predicted for.
        text: Whether the process turns text into the graph's tokens.
    """
    predict = memory_plan if built.format == "onnx" else litert_plan
    plan = predict(ir.load(built.graph), dimensions)
    return msgspec.structs.replace(plan, engine=plan.engine + text * TEXT_BYTES)


@dataclass
class _Weights:
    """What becomes of the constants of a graph when a session opens.

    Attributes:
        packed: Constant -> bytes of its packed copy.
        folded: Bytes of everything computed from constants.
        released: Initializers whose mapping is dropped once the session is open.
        touched: Initializer that is looked up -> bytes that its look-ups bring in.
    """

    packed: dict[ir.Value, int] = field(default_factory=dict)
    folded: int = 0
    released: set[ir.Value] = field(default_factory=set)
    touched: dict[ir.Value, int] = field(default_factory=dict)
    constants: set[ir.Value] = field(default_factory=set)

    def visit(self, node: ir.Node, sized: ir.Node) -> None:
        """Takes note of one node; ``sized`` is its twin with static shapes."""
        given = [value for value in node.inputs if value is not None]
        if given and not subgraphs(node) and all(map(self._is_constant, given)):
            self._fold(node, sized)
            return
        for place in PACKED.get(node.op_type, ()):
            for value, twin in _weight(node, sized, place):
                if self._is_constant(value):
                    self.packed[value] = int((nbytes(twin) or 0) * self._copies(node, value))
                    self._release(value)
        table = sized.inputs[0] if node.op_type == "Gather" else None
        if table is not None and given[0] in self.constants:
            self.packed[given[0]] = nbytes(table) or 0  # copied once more on the way
        elif node.op_type == "Gather" and self._is_constant(given[0]):
            rows = 1
            for size in static_shape(sized.inputs[1]) or ():
                rows *= size
            self.touched[given[0]] = self.touched.get(given[0], 0) + rows * LOOKUP_BYTES

    @property
    def largest_released(self) -> int:
        """Bytes of the largest packed weight that comes straight from a file."""
        return max(
            (v.const_value.nbytes for v in self.released if v in self.packed and v.const_value),
            default=0,
        )

    def _copies(self, node: ir.Node, value: ir.Value) -> float:
        """Heap copies that an engine makes of a weight, beyond what was computed for it."""
        if value in self.constants:
            # What computing it has freed suffices for a product's packed form.
            return 0 if node.op_type in ("MatMul", *RECURRENT) else 1
        return CONV_COPIES if node.op_type == "Conv" and value.dtype == ir.DataType.FLOAT else 1

    def _fold(self, node: ir.Node, sized: ir.Node) -> None:
        self.constants.update(node.outputs)
        if node.op_type == "DequantizeLinear":  # stays in the graph, fused into its user
            return
        self.folded += sum(nbytes(value) or 0 for value in sized.outputs)
        for value in node.inputs:
            if value is not None:
                self._release(value)

    def _release(self, value: ir.Value) -> None:
        if value.is_initializer():
            self.released.add(value)

    def _is_constant(self, value: ir.Value) -> bool:
        return value in self.constants or tensor_of(value) is not None


def _weight(node: ir.Node, sized: ir.Node, place: int) -> Iterator[tuple[ir.Value, ir.Value]]:
    """The constant that an engine packs for an input, with the value that has its bytes."""
    value = node.inputs[place] if place < len(node.inputs) else None
    if value is None:
        return
    quantized = producer(value, "DequantizeLinear")
    if quantized is not None and quantized.inputs[0] is not None:
        yield quantized.inputs[0], quantized.inputs[0]
    elif node.op_type == sized.op_type:
        twin = sized.inputs[place]
        if twin is not None:
            yield value, twin
    else:  # the twin is a stand-in with a float weight
        yield value, value
