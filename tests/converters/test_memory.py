from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks.models import encoder, resnet18
from converters.materialize import save
from converters.measure import peak_rss
from converters.memory import LOOKUP_BYTES, memory_plan
from converters.passes.base import Context, build
from converters.recipes import step
from converters.source import open_source
from edge_sdk.bundle.record import Recipe
from tests.converters.test_costs import model

TOKENS = {"batch": 1, "tokens": 64}


def large_encoder(folder: Path) -> Path:
    """Large enough that its weights, and not the engine, decide."""
    return encoder(folder, layers=6, hidden=512)


def shipped(path: Path, folder: Path, *passes: str) -> Path:
    """The graph as a bundle holds it, weights in a file of their own."""
    graph = open_source(path).model
    recipe = Recipe(name="test", steps=tuple(step(name) for name in passes))
    for graph_pass in build(recipe, Context()):
        graph = graph_pass(graph).model
    folder.mkdir()
    return save(graph, folder)


@pytest.mark.parametrize(
    ("network", "passes", "dimensions"),
    [
        (large_encoder, (), TOKENS),
        (large_encoder, ("dynamic-int8",), TOKENS),
        (large_encoder, ("store-small",), TOKENS),
        (resnet18, (), {"batch": 1}),
    ],
)
def test_predicted_peak_is_near_the_measured_one(network, passes, dimensions, tmp_path):
    path = shipped(network(tmp_path), tmp_path / "shipped", *passes)
    call = {
        "input_ids": np.random.default_rng(1).integers(0, 8192, (1, 64)),
        "x": np.ones((1, 3, 224, 224), np.float32),
    }
    name = open_source(path).inputs[0].name
    measured = peak_rss(path, {name: call[name]})
    plan = memory_plan(ir.load(path), dimensions)
    assert plan.peak == pytest.approx(measured, rel=0.15)


def external(graph: ir.Model, folder: Path) -> ir.Model:
    return ir.load(save(graph, folder))


def test_a_packed_weight_is_private_and_no_longer_mapped(tmp_path):
    text = "g (float[n, 256] x) => (y) { y = MatMul(x, w) }"
    plan = memory_plan(external(model(text, w=(256, 512)), tmp_path), {"n": 64})
    assert plan.weights_private == 256 * 512 * 4
    assert plan.weights_mapped == 0  # gone before the activations, which are larger, come


def test_the_largest_weight_is_there_twice_while_it_is_packed(tmp_path):
    text = "g (float[1, 2048] x) => (y) { h = MatMul(x, a) y = MatMul(h, b) }"
    plan = memory_plan(external(model(text, a=(2048, 1024), b=(1024, 512)), tmp_path), {})
    largest, both = 2048 * 1024 * 4, (2048 * 1024 + 1024 * 512) * 4
    assert plan.weights_private == both
    assert plan.weights_mapped + plan.activations == largest


def test_a_weight_that_two_nodes_read_counts_once(tmp_path):
    text = "g (float[64, 256] x) => (y) { h = MatMul(x, w) y = MatMul(h, w) }"
    plan = memory_plan(external(model(text, w=(256, 256)), tmp_path), {})
    assert plan.weights_private == 256 * 256 * 4


def test_a_table_counts_for_the_rows_looked_up_and_never_more_than_it_has(tmp_path):
    text = "g (int64[n] ids) => (y) { y = Gather(table, ids) }"
    graph = external(model(text, table=(65536, 64)), tmp_path)
    assert memory_plan(graph, {"n": 3}).weights_mapped == 3 * LOOKUP_BYTES
    assert memory_plan(graph, {"n": 1000}).weights_mapped == 65536 * 64 * 4


def test_stored_weights_count_with_everything_computed_from_them(tmp_path):
    text = """g (float[64, 256] x) => (y) {
      wide = Cast <to = 1> (w)
      weight = Mul(wide, s)
      y = MatMul(x, weight)
    }"""
    graph = external(model(text, w=np.ones((256, 256), np.int8), s=(256,)), tmp_path)
    size = 256 * 256 * 4
    # the cast one and the scaled one at once; the int8 one is not mapped any more
    plan = memory_plan(graph, {})
    assert (plan.weights_private, plan.weights_mapped) == (2 * size, 0)


def test_int8_weights_of_qdq_products_are_packed_as_int8(tmp_path):
    text = """g (float[64, 256] x) => (y) {
      q = QuantizeLinear(x, s, z)
      d = DequantizeLinear(q, s, z)
      weight = DequantizeLinear(w, s, z)
      y = MatMul(d, weight)
    }"""
    scale, zero = np.array(0.1, np.float32), np.array(0, np.int8)
    graph = model(text, w=np.ones((256, 256), np.int8), s=scale, z=zero)
    assert memory_plan(external(graph, tmp_path), {}).weights_private == 256 * 256


def test_activations_grow_with_the_dimensions(tmp_path):
    text = "g (float[n, 256] x) => (y) { y = Neg(x) }"
    graph = model(text)
    small, large = (memory_plan(graph, {"n": n}) for n in (64, 128))
    assert large.activations > small.activations
    assert large.reference_shapes == {"n": 128}
