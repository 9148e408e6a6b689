"""How much of a network's work a recipe quantized: what its family's speed applies to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from converters.passes.graph_tools import tensor_of
from converters.sensitivity import WEIGHT_INPUT


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
