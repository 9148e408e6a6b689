"""The share of the work that a recipe quantized."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converters.costs import node_costs
from converters.materialize import save
from converters.passes.base import Context, build
from converters.share import STEPWISE_GAIN, quantized_share, with_steps
from edge_sdk.bundle.record import NodeCost, Recipe, Step
from tests.passes.models import graph, normal


def network() -> ir.Model:
    model = graph(
        "(float[1,64] x) => (float[1,64] y)",
        "a = MatMul (x, w) b = Relu (a) y = MatMul (b, v)",
        w=normal(64, 64),
        v=normal(64, 64),
    )
    for number, node in enumerate(model.graph):
        node.name = f"node{number}"
    return model


@pytest.mark.parametrize(
    ("steps", "share"),
    [
        ((), 0.0),
        ((Step(op="store-small", options={"min_elements": 1}),), 0.0),
        ((Step(op="dynamic-int8"),), 1.0),
        ((Step(op="dynamic-int8", options={"exclude": ("node0",)}),), 0.5),
        ((Step(op="infer-shapes"), Step(op="float16")), 1.0),
    ],
    ids=["nothing", "stored", "all", "half", "fp16"],
)
def test_share_counts_layers_that_compute_in_low_precision(steps, share, tmp_path):
    flops = {cost.node: cost.flops for cost in node_costs(network(), {})}
    model = network()
    for graph_pass in build(Recipe(name="r", steps=steps), Context()):
        model = graph_pass(model).model
    found = quantized_share(flops, save(model, tmp_path))
    assert found == pytest.approx(share, abs=0.02)
    assert np.isfinite(found)


def test_an_estimate_for_layers_does_not_hold_for_steps_of_a_recurrence():
    def cost(op: str, flops: int) -> NodeCost:
        return NodeCost(node=op, op=op, flops=flops, weight_bytes=0, activation_bytes=0)

    assert with_steps(2.0, [cost("MatMul", 6)]) == 2.0
    assert with_steps(2.0, [cost("LSTM", 6)]) == STEPWISE_GAIN
    half = with_steps(2.0, [cost("LSTM", 3), cost("MatMul", 3)])
    assert half == pytest.approx(1 / (0.5 / 2.0 + 0.5 / STEPWISE_GAIN))
