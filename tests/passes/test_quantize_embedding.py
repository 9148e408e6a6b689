"""Embedding tables in int8 rows: a quarter of the bytes, and only looked-up rows are widened."""

from __future__ import annotations

import numpy as np

from converters.passes.base import Context
from converters.passes.quantize_embedding import QuantizeEmbedding, QuantizeEmbeddingOptions
from tests.passes.models import build, graph, normal, ops, run, untouched, weight_bytes
from tests.passes.networks import transformed

ROWS, WIDTH = 600, 32


def table() -> np.ndarray:
    """A table with one row a thousand times as large, and one of zeros."""
    array = normal(ROWS, WIDTH)
    array[7] *= 1000
    array[8] = 0
    return array


def test_table_shrinks_to_a_quarter_with_every_row_at_its_own_scale() -> None:
    before = graph("(int64[B,S] i) => (float[B,S,W] y)", "y = Gather (t, i)", t=table())
    after = transformed(QuantizeEmbedding(), before)
    assert weight_bytes(after) < 0.29 * weight_bytes(before)
    feeds = {"i": np.array([[0, 7, 8], [9, -1, 599]])}
    expected, actual = run(before, feeds)["y"], run(after, feeds)["y"]
    step = np.abs(expected).max(axis=-1, keepdims=True) / 127
    assert (np.abs(actual - expected) <= 0.51 * step).all()


def test_lookups_in_subgraphs_share_one_table() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    main (bool c, int64[N] i) => (float[N,W] y) {
        a = Gather (t, i)
        b = If (c) <
            then_branch = p () => (float[N,W] u) { u = Gather (t, i) },
            else_branch = q () => (float[N,W] v) { g = Gather (t, i) v = Neg (g) }
        >
        y = Add (a, b)
    }"""
    before = build(text, t=table())
    after = transformed(QuantizeEmbedding(), before)
    assert set(after.graph.initializers) == {"t_int8", "t_scale"}
    feeds = {"c": np.array(True), "i": np.array([3, 5])}
    np.testing.assert_allclose(run(after, feeds)["y"], run(before, feeds)["y"], atol=0.1)


def test_tied_small_and_excluded_tables_stay() -> None:
    tied = graph(
        "(int64[N] i) => (float[N,M] y)",
        "e = Gather (t, i) k = Transpose (t) y = MatMul (e, k)",
        t=table(),
    )
    context = Context()
    assert untouched(QuantizeEmbedding(None, context), tied)
    assert [skipped.reason for skipped in context.unquantized] == [
        "its table is also used as a matrix"
    ]
    small = graph("(int64[N] i) => (float[N,W] y)", "y = Gather (t, i)", t=normal(20, 8))
    assert untouched(QuantizeEmbedding(), small)
    plain = graph("(int64[N] i) => (float[N,W] y)", "y = Gather (t, i)", t=table())
    next(iter(plain.graph)).name = "words"
    assert untouched(QuantizeEmbedding(QuantizeEmbeddingOptions(exclude=("words",))), plain)


def test_lookups_along_another_axis_and_of_integers_stay() -> None:
    columns = graph("(int64[N] i) => (float[R,N] y)", "y = Gather <axis = 1> (t, i)", t=table())
    integers = graph(
        "(int64[N] i) => (int64[N,W] y)", "y = Gather (t, i)", t=table().astype(np.int64)
    )
    for model in (columns, integers):
        assert untouched(QuantizeEmbedding(), model)
        assert ops(model)["Gather"] == 1
