"""What a graph costs: arithmetic, weights and activations per node. Nothing is run or read.

The figures are what planners and predictions start from. FLOPs count a
multiply-add as two; operators that only move data count none. A shape that
cannot be inferred makes its node cost nothing; :attr:`GraphCosts.unknown`
says how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from converters.passes.base import each_graph
from converters.passes.graph_tools import (
    nbytes,
    producer,
    scalar,
    static_shape,
    subgraphs,
    tensor_of,
)
from converters.shapes import bind, reference_dimensions
from edge_sdk.bundle.record import NodeCost

__all__ = [
    "GraphCosts",
    "graph_costs",
    "live_bytes",
    "node_costs",
    "peak_activations",
    "reference_dimensions",
]

Shape = tuple[int, ...]

MOVES_DATA = frozenset({
    "Cast", "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "Expand", "Flatten", "Gather",
    "GatherElements", "GatherND", "Identity", "Pad", "Reshape", "ScatterElements", "ScatterND",
    "Shape", "Size", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
# An output of these is its input's buffer under another shape (or is computed inside the
# int8 operator that reads it, and never exists).
ALIASES = frozenset({"DequantizeLinear", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
# Operations per output element where it is plainly more than one.
PER_ELEMENT = {
    "BatchNormalization": 2, "Erf": 10, "Exp": 8, "Gelu": 12, "HardSwish": 4, "Log": 8,
    "LayerNormalization": 8, "Pow": 8, "Resize": 4, "Sigmoid": 8, "Softmax": 10, "Sqrt": 4,
    "Tanh": 8,
}  # fmt: skip
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclass(frozen=True)
class GraphCosts:
    """Costs of a whole graph for given values of its symbolic dimensions.

    Attributes:
        nodes: One entry per node of the main graph; those of subgraphs are summed
            into the node that owns them.
        peak_activations: Largest sum of activations that are alive at once, in bytes.
        unknown: Nodes whose shapes could not be inferred, and which count nothing.
    """

    nodes: tuple[NodeCost, ...]
    peak_activations: int
    unknown: int


def node_costs(model: ir.Model, dimensions: Mapping[str, int]) -> tuple[NodeCost, ...]:
    """Cost of each node of the main graph; see :func:`graph_costs`."""
    return graph_costs(model, dimensions).nodes


def peak_activations(model: ir.Model, dimensions: Mapping[str, int]) -> int:
    """Largest sum of activations alive at once, in bytes; see :func:`graph_costs`."""
    return graph_costs(model, dimensions).peak_activations


def graph_costs(model: ir.Model, dimensions: Mapping[str, int]) -> GraphCosts:
    """Costs of a graph.

    What depends on constants only costs nothing but its weights. A ``Scan`` body counts
    once per step, a ``Loop`` body as often as its trip
    count says (once where that is not constant), of an ``If`` the dearer branch.

    Args:
        model: The graph; it is not changed, and its weights are not read.
        dimensions: Symbolic dimension of the inputs -> value; others count as 1.
    """
    bound = bind(model, dimensions)
    fixed = constants(bound.graph)
    nodes = tuple(
        NodeCost(
            node=node.name or "",
            op=node.op_type,
            flops=0 if fixed.issuperset(twin.outputs) else _flops(twin),
            weight_bytes=_weight_bytes(node),
            activation_bytes=sum(nbytes(v) or 0 for v in twin.outputs if v not in fixed),
        )
        for node, twin in zip(model.graph, bound.graph, strict=True)
    )
    unknown = sum(
        any(nbytes(value) is None for value in node.outputs if value.name)
        for graph in each_graph(bound.graph)
        for node in graph
    )
    return GraphCosts(nodes, live_bytes(bound.graph), unknown)


def live_bytes(graph: ir.Graph) -> int:
    """Largest sum of activations alive at once, in bytes, in a graph with static shapes."""
    return _Liveness(graph).peak()


def constants(graph: ir.Graph) -> set[ir.Value]:
    """Values of a graph that are computed from constants only, when a session opens."""
    found: set[ir.Value] = set()
    for node in graph:
        given = [value for value in node.inputs if value is not None]
        if not subgraphs(node) and all(v in found or tensor_of(v) is not None for v in given):
            found.update(node.outputs)
    return found


def _weight_bytes(node: ir.Node) -> int:
    own = sum(tensor.nbytes for value in node.inputs if (tensor := tensor_of(value)) is not None)
    return own + sum(_weight_bytes(inner) for graph in subgraphs(node) for inner in graph)


def _flops(node: ir.Node) -> int:
    inner = [sum(_flops(child) for child in graph) for graph in subgraphs(node)]
    if node.op_type == "If":
        return max(inner, default=0)
    if inner:
        return _trips(node) * sum(inner)
    shapes = [static_shape(value) for value in node.inputs]
    output = static_shape(node.outputs[0]) if node.outputs else None
    if output is None or node.op_type in MOVES_DATA:
        return 0
    if node.op_type in _RULES:
        return _RULES[node.op_type](node, shapes, output)
    largest = max((prod(shape) for shape in (*shapes, output) if shape), default=0)
    return PER_ELEMENT.get(node.op_type, 1) * largest


def _trips(node: ir.Node) -> int:
    """How often the body of a ``Loop`` or ``Scan`` runs, 1 where that depends on the data."""
    if node.op_type == "Scan":
        scanned = static_shape(node.inputs[-1])
        axes = node.attributes.get_ints("scan_input_axes") or (0,)
        return scanned[axes[-1]] if scanned else 1
    trips = scalar(node.inputs[0]) if node.inputs else None
    return max(int(trips), 0) if trips is not None else 1


def _convolution(node: ir.Node, shapes: list[Shape | None], output: Shape) -> int:
    weight = shapes[3 if node.op_type == "QLinearConv" else 1]
    if weight is None:
        return 0
    if node.op_type == "ConvTranspose":
        return 2 * prod(shapes[0] or (0,)) * prod(weight[1:])
    return 2 * prod(output) * prod(weight[1:])


def _product(node: ir.Node, shapes: list[Shape | None], output: Shape) -> int:
    first = shapes[0]
    if not first:
        return 0
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transA")
    return 2 * prod(output) * first[0 if transposed else -1]


def _recurrence(node: ir.Node, shapes: list[Shape | None], output: Shape) -> int:
    """Gates over [steps, batch, inputs] with weights [directions, gates * hidden, inputs]."""
    data, weight, recurrent = shapes[:3]
    if data is None or weight is None or recurrent is None:
        return 0
    steps = prod(data[:2])
    return 2 * steps * (prod(weight) + prod(recurrent)) + GATES[node.op_type] * 10 * prod(output)


def _einsum(node: ir.Node, shapes: list[Shape | None], output: Shape) -> int:
    terms = node.attributes.get_string("equation", "").replace(" ", "").split("->")[0].split(",")
    sizes = {
        letter: size
        for term, shape in zip(terms, shapes, strict=False)
        for letter, size in zip(term, shape or (), strict=False)
    }
    return 2 * prod(sizes.values())


def _attention(node: ir.Node, shapes: list[Shape | None], output: Shape) -> int:
    """Scores and the mixture of values; the softmax between them."""
    query, scores = shapes[0], _scores(node)
    if query is None or scores is None:
        return 0
    heads = scores[1]
    width = query[-1] + output[-1] if len(query) == 3 else heads * (query[-1] + output[-1])
    return prod(scores) * (2 * width // heads + PER_ELEMENT["Softmax"])


def _scores(node: ir.Node) -> Shape | None:
    """Shape of what an ``Attention`` computes inside: [batch, head, query, key]."""
    query, key = (static_shape(value) for value in node.inputs[:2])
    if query is None or key is None or node.op_type != "Attention" or node.domain:
        return None
    heads = node.attributes.get_int("q_num_heads", 0) if len(query) == 3 else query[1]
    return (query[0], heads, query[-2], key[-2]) if heads else None


def _pool(node: ir.Node, shapes: list[Shape | None], output: Shape) -> int:
    kernel: Sequence[int] = node.attributes.get_ints("kernel_shape") or ()
    return prod(output) * prod(kernel)


_RULES = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv", "ConvTranspose"), _convolution),
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul", "Gemm"), _product),
    **dict.fromkeys(GATES, _recurrence),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), _pool),
    "Attention": _attention,
    "Einsum": _einsum,
}


class _Liveness:
    """Which activations are alive at once, walking a graph in its topological order.

    Inputs live throughout, because the caller holds them; so do outputs once
    they are computed. An element-wise result takes the buffer of an input that
    ends there. What depends on constants only is not an activation.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.constant = constants(graph)
        self.int8: set[ir.Value] = set()
        self.root: dict[ir.Value, ir.Value] = {}
        self.last: dict[ir.Value, int] = {}
        for place, node in enumerate(graph):
            given = [value for value in node.inputs if value is not None]
            requantizes = node.op_type == "QuantizeLinear" and given[0] in self.int8
            if node.op_type in ALIASES or requantizes:
                self.root[node.outputs[0]] = self._root(given[0])
            elif _is_quantized(node):
                self.int8.add(node.outputs[0])
            for value in (*_reads(node), *node.outputs):
                self.last[self._root(value)] = place
        for value in graph.outputs:
            self.last[self._root(value)] = len(self.last) + len(graph)

    def peak(self) -> int:
        """The largest sum, in bytes."""
        alive = sum(nbytes(value) or 0 for value in self.graph.inputs)
        peak, ends = alive, self._ends()
        for place, node in enumerate(self.graph):
            ending = [self._bytes(value) for value in ends.get(place, ())]
            new = sum(self._bytes(value) for value in node.outputs if self._root(value) is value)
            reused = new if new in ending and node.op_type not in _RULES else 0
            inner = [_Liveness(graph).peak() for graph in subgraphs(node)]
            peak = max(peak, alive + new - reused + max(inner, default=_scratch(node)))
            alive += new - sum(ending)
        return peak

    def _ends(self) -> dict[int, list[ir.Value]]:
        """Place -> activations that this graph makes and that are read there for the last time."""
        ends: dict[int, list[ir.Value]] = {}
        for value, place in self.last.items():
            node = value.producer()
            if node is not None and node.graph is self.graph:
                ends.setdefault(place, []).append(value)
        return ends

    def _bytes(self, value: ir.Value) -> int:
        if value in self.constant:
            return 0
        return prod(static_shape(value) or (0,)) if value in self.int8 else nbytes(value) or 0

    def _root(self, value: ir.Value) -> ir.Value:
        return self.root.get(value, value)


def _is_quantized(node: ir.Node) -> bool:
    """Whether an engine computes this node in int8, so that its float output never exists."""
    return (
        len(node.outputs) == 1
        and all(use.node.op_type == "QuantizeLinear" for use in node.outputs[0].uses())
        and not node.outputs[0].is_graph_output()
        and any(producer(value, "DequantizeLinear") for value in node.inputs)
    )


def _scratch(node: ir.Node) -> int:
    """Bytes that a kernel needs while it runs: ``Attention`` its scores, and heads apart."""
    scores = _scores(node) if node.op_type == "Attention" else None
    if scores is None:
        return 0
    heads_apart = sum(nbytes(value) or 0 for value in node.inputs[:3] if value is not None)
    return 4 * prod(scores) + heads_apart


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """Values a node reads, those that its subgraphs capture included."""
    yield from (value for value in node.inputs if value is not None)
    for graph in subgraphs(node):
        for inner in graph:
            yield from _reads(inner)
        yield from graph.outputs
