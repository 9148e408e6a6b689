"""Clamps that the operator before them can apply itself."""

from __future__ import annotations

import math

import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from converters.passes.graph_tools import only_consumer
from converters.passes.qdq_placement import clamp_bounds, clamped_input

FUSED: dict[tuple[float, float], int] = {
    (0.0, math.inf): schema.ActivationFunctionType.RELU,
    (0.0, 6.0): schema.ActivationFunctionType.RELU6,
    (-1.0, 1.0): schema.ActivationFunctionType.RELU_N1_TO_1,
}


def clamp_behind(value: ir.Value) -> tuple[ir.Node, int] | None:
    """The clamp that alone uses ``value`` and the schema's word for it, if it has one."""
    user = only_consumer(value)
    if user is None or user.graph is not value.graph:
        return None
    bounds = clamp_bounds(user)
    if bounds not in FUSED or clamped_input(user) is not value:
        return None
    return user, FUSED[bounds]
