"""What a decoder's weights cost in bytes and arithmetic, by architecture and plan alone. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from converters.decoder.architecture import Architecture
from converters.decoder.names import nodes, parts, shapes
from converters.decoder.weights import WeightFormat, WeightPlan
from edge_sdk.bundle.record import NodeCost

FLOAT_BYTES = 4
# Graph and node attributes in the ONNX file.
GRAPH_BYTES_PER_NODE = 256
# A layer is norm, qkv, attention, o, norm, gate_up, split, activation, product, down.
NODES_PER_LAYER = 10


@dataclass(frozen=True)
class Matrix:
    """One node's weight ``[rows, width]`` as a plan stores it.

    Attributes:
        node: The node that multiplies by it, or ``embed``.
        rows: Outputs.
        width: Inputs.
        wanted: Its format.
    """

    node: str
    rows: int
    width: int
    wanted: WeightFormat

    @property
    def blocks(self) -> int:
        """Blocks with a scale each; 0 for float."""
        narrow = self.wanted.bits <= 8
        return self.rows * -(-self.width // self.wanted.block_size) if narrow else 0

    @property
    def code_bytes(self) -> int:
        """The weights themselves; the last block of a row is padded."""
        count = self.blocks * self.wanted.block_size or self.rows * self.width
        return count * self.wanted.bits // 8

    @property
    def scale_bytes(self) -> int:
        """Scales in float32 and zero points, which share bytes along a row."""
        per_row = self.blocks // self.rows
        zeros = 0 if self.wanted.symmetric else self.rows * -(-per_row * self.wanted.bits // 8)
        return FLOAT_BYTES * self.blocks + zeros

    @property
    def nbytes(self) -> int:
        """All of it in the file."""
        return self.code_bytes + self.scale_bytes

    @property
    def packed_bytes(self) -> int:
        """As ONNX Runtime lays it out for an x86-64 CPU.

        In blocks: codes, and a scale and a sum in float32 for each block. Float16 is
        widened when it is loaded.
        """
        if self.blocks:
            return self.code_bytes + 2 * FLOAT_BYTES * self.blocks
        return FLOAT_BYTES * self.rows * self.width

    @property
    def flops(self) -> int:
        """Arithmetic per token, a multiply-add as two."""
        return 2 * self.rows * self.width


def matrices(architecture: Architecture, plan: WeightPlan) -> tuple[Matrix, ...]:
    """What the nodes multiply by, in the order they compute; the head comes last."""
    known = shapes(architecture)
    return tuple(_matrices(architecture, plan, known))


def table(architecture: Architecture, plan: WeightPlan) -> Matrix:
    """The embedding table; the head's weight where both are tied."""
    wanted = plan.of("head" if architecture.tied else "embed")
    return Matrix("embed", architecture.vocab, architecture.hidden, wanted)


def other_bytes(architecture: Architecture) -> int:
    """Norms, biases and rotary tables, in float32."""
    vectors = sum(prod(dims) for dims in shapes(architecture).values() if len(dims) == 1)
    rotary = 2 * architecture.context * len(architecture.rope.inverse_frequencies)
    return FLOAT_BYTES * (vectors + rotary)


def shipped_bytes(architecture: Architecture, plan: WeightPlan) -> int:
    """Size of graph and weights; a tied table counts once."""
    weights = sum(matrix.nbytes for matrix in matrices(architecture, plan))
    if not architecture.tied:
        weights += table(architecture, plan).nbytes
    return weights + other_bytes(architecture) + GRAPH_BYTES_PER_NODE * node_count(architecture)


def node_count(architecture: Architecture) -> int:
    """About how many nodes the graph has."""
    return NODES_PER_LAYER * architecture.layers + 5


def node_costs(architecture: Architecture, plan: WeightPlan) -> tuple[NodeCost, ...]:
    """Costs per token of the nodes with weights."""
    return tuple(
        NodeCost(
            node=matrix.node,
            op="MatMulNBits" if matrix.blocks else "MatMul",
            flops=matrix.flops,
            weight_bytes=matrix.nbytes,
            activation_bytes=FLOAT_BYTES * (matrix.rows + matrix.width),
        )
        for matrix in matrices(architecture, plan)
    )


def _matrices(
    architecture: Architecture, plan: WeightPlan, known: dict[str, tuple[int, ...]]
) -> Iterator[Matrix]:
    for node in nodes(architecture):
        names = ("embed",) if node == "head" and architecture.tied else parts(node)
        yield Matrix(
            node=node,
            rows=sum(known[name][0] for name in names),
            width=known[names[0]][1],
            wanted=plan.of(node),
        )
