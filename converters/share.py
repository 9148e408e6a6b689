"""How much of a network's work a recipe quantized: what its family's speed applies to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from converters.passes.graph_tools import tensor_of
from converters.sensitivity import WEIGHT_INPUT
from edge_sdk.bundle.record import NodeCost

STEPWISE = frozenset({"GRU", "LSTM", "Loop", "RNN", "Scan"})
# Speed of such operators on LiteRT, which has no kernels of their own for them, over ONNX
# Runtime: 0.3 to 0.7 was measured, whatever the weights are stored as.
STEPWISE_GAIN = 0.5


def quantized_share(flops: Mapping[str, int], candidate: Path) -> float:
    """Share of a float graph's FLOPs in layers that a candidate quantized.

    A layer counts as quantized if its node is gone or became another operator, or no
    longer reads float32 weights; weights that are only stored small do not count.

    Args:
        flops: Node of the prepared float graph -> its FLOPs.
        candidate: The candidate's graph file.
    """
    floating = {node.name for node in ir.load(candidate).graph if _stays_float(node)}
    total = sum(flops.values())
    return sum(work for node, work in flops.items() if node not in floating) / total if total else 0


def with_steps(gain: float, costs: Sequence[NodeCost]) -> float:
    """The speedup on LiteRT of a graph of which a part is computed step by step.

    Args:
        gain: Speedup of everything else.
        costs: Costs of the float graph's nodes.
    """
    total = sum(cost.flops for cost in costs)
    steps = sum(cost.flops for cost in costs if cost.op in STEPWISE) / total if total else 0.0
    return 1 / ((1 - steps) / gain + steps / STEPWISE_GAIN)


def _stays_float(node: ir.Node) -> bool:
    """Whether a node computes in float32 as far as its weights tell."""
    if node.op_type in ("DynamicQuantizeMatMul", "MatMulNBits"):
        return False
    index = WEIGHT_INPUT.get(node.op_type)
    weight = node.inputs[index] if index is not None and len(node.inputs) > index else None
    if weight is None:
        return True
    producer = weight.producer()
    if producer is not None:
        return producer.op_type != "DequantizeLinear"
    tensor = tensor_of(weight)
    return tensor is None or tensor.dtype == ir.DataType.FLOAT
