"""Equal weights are stored once."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converters.passes.base import each_graph
from converters.passes.share_initializers import ShareInitializers, ShareInitializersOptions
from tests.passes.models import graph, improved, normal, ops, untouched, weight_bytes


def twins(second: np.ndarray) -> ir.Model:
    return graph(
        "(float[N,32] x) => (float[N,32] y)",
        "a = MatMul (x, v) b = Relu (a) y = MatMul (b, w)",
        v=normal(32, 32),
        w=second,
    )


def test_equal_weights_share_one_initializer() -> None:
    before = twins(normal(32, 32))
    after = improved(ShareInitializers(), before)
    assert weight_bytes(after) * 2 == weight_bytes(before)
    assert untouched(ShareInitializers(), after)


def test_what_differs_in_type_shape_or_one_bit_stays_apart() -> None:
    almost = normal(32, 32)
    almost[0, 0] = np.nextafter(almost[0, 0], np.float32(9))
    assert untouched(ShareInitializers(), twins(almost))
    assert untouched(ShareInitializers(), twins(normal(32, 32).reshape(32, 1, 32)))
    zeros = graph(
        "(float[N,32] x, int32[32,32] i) => (float[N,32] y, int32[32,32] j)",
        "y = MatMul (x, w) j = Add (i, k)",
        w=np.zeros((32, 32), np.float32),
        k=np.zeros((32, 32), np.int32),
    )
    assert untouched(ShareInitializers(), zeros)


def test_small_ones_are_not_worth_it() -> None:
    options = ShareInitializersOptions(min_bytes=1 << 20)
    assert untouched(ShareInitializers(options), twins(normal(32, 32)))


BRANCHES = """
    y = If (c) <
        then_branch = t () => (float[N,32] a) { a = MatMul (x, w) },
        else_branch = e () => (float[N,32] b) { h = MatMul (x, v) b = Relu (h) }
    >
"""


def test_twins_in_sibling_branches_move_to_the_main_graph() -> None:
    model = graph(
        "(bool c, float[N,32] x) => (float[N,32] y)",
        BRANCHES,
        v=normal(32, 32),
        w=normal(32, 32),
    )
    main, *inner = each_graph(model.graph)
    for branch, name in zip(inner, ("w", "v"), strict=True):
        value = main.initializers.pop(name)
        value.name = "weight"  # siblings may use the same name
        branch.register_initializer(value)
    before = weight_bytes(model)
    for condition in (True, False):
        feeds = {"c": np.array(condition), "x": normal(2, 32)}
        after = improved(ShareInitializers(), model, feeds)
        assert [len(graph.initializers) for graph in each_graph(after.graph)] == [1, 0, 0]
        assert weight_bytes(after) * 2 == before
        assert ops(after) == ops(model)


def test_defaults_of_inputs_and_outputs_stay() -> None:
    model = graph(
        "(float[N,32] x, float[32,32] v) => (float[N,32] y, float[32,32] w)",
        "a = MatMul (x, v) y = MatMul (a, w)",
        v=normal(32, 32),
        w=normal(32, 32),
    )
    assert untouched(ShareInitializers(), model)
