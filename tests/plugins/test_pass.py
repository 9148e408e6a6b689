"""The example pass."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.runtime.opening import load
from tests.passes.models import graph, improved, normal, ops, untouched
from tests.plugins import EXAMPLES
from tests.plugins.conftest import expected

RECIPE = EXAMPLES / "pass/recipe.toml"


@pytest.fixture
def expand(site, monkeypatch):
    monkeypatch.syspath_prepend(site)
    import expand_pow

    return lambda largest: expand_pow.ExpandPow(expand_pow.ExpandPowOptions(largest=largest))


def power(exponent, signature="(float[n, 4] x) => (float[n, 4] y)"):
    return graph(signature, "y = Pow (x, k)", k=np.float32(exponent))


def test_the_example_pass_runs_in_a_recipe(tmp_path, edge_sdk, squares):
    bundle = tmp_path / "bundle"
    done = edge_sdk("convert", squares, "-o", bundle, "-p", "x86-64", "--recipe", RECIPE)
    assert done.returncode == 0, done.stderr
    variant = open_bundle(bundle).variant("x86-64")
    assert "expand-pow" in [step.op for step in variant.record.recipe.steps]
    assert variant.record.recipe.forced
    graph_file = variant.blobs.path(variant.record.graphs[0].parts[0].digest)
    shipped = onnx.load(graph_file, load_external_data=False)
    assert [node.op_type for node in shipped.graph.node] == ["Mul", "MatMul"]
    x = normal(3, 16, seed=5)
    y = load(bundle, "x86-64").run({"x": x})["y"]
    np.testing.assert_allclose(y, expected(x), rtol=1e-4, atol=1e-4)


def test_a_cube_is_two_products(expand):
    assert ops(improved(expand(3), power(3))) == {"Mul": 2}


@pytest.mark.parametrize("exponent", [4, 1, 2.5, -2, np.nan, np.inf, [2], [[[2]]]])
def test_other_exponents_stay(expand, exponent):
    shape = "float[1, n, 4]" if np.ndim(exponent) == 3 else "float[n, 4]"
    assert untouched(expand(3), power(exponent, f"(float[n, 4] x) => ({shape} y)"))


def test_an_exponent_that_is_computed_stays(expand):
    assert untouched(expand(3), graph("(float[n] x, float k) => (float[n] y)", "y = Pow (x, k)"))
