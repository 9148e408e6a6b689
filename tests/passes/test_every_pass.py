"""What holds for every registered pass, on graphs that break careless ones."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converters.passes.base import Context, build, is_rewrite, registry
from edge_sdk.bundle.record import Recipe, Step
from tests.passes.models import Array, feeds_for, run, signature
from tests.passes.odd_graphs import odd_graphs

GRAPHS = odd_graphs()
PASSES = sorted(registry())


def rewritten(pass_name: str, model: ir.Model) -> ir.Model:
    after = ir.from_proto(ir.to_proto(model))
    (pass_,) = build(Recipe(name="one", steps=(Step(op=pass_name),)), Context())
    pass_(after)
    return after


@cache
def expected(name: str) -> list[tuple[dict[str, Array], dict[str, Array]]]:
    """Feeds and outputs of one graph, with every flag among its inputs both ways."""
    first = feeds_for(GRAPHS[name], seed=3)
    flags = [key for key, array in first.items() if array.dtype == np.bool_]
    every = [first | {key: np.array(state) for key in flags} for state in (True, False)]
    return [(feeds, run(GRAPHS[name], feeds)) for feeds in (every if flags else every[:1])]


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("pass_name", PASSES)
def test_valid_same_signature_same_outputs_same_bytes(pass_name: str, name: str) -> None:
    before = GRAPHS[name]
    after, again = (rewritten(pass_name, before) for _ in range(2))
    assert serialized(after) == serialized(again)
    onnx.checker.check_model(ir.to_proto(after))
    inputs, outputs = signature(after)
    assert outputs == signature(before)[1]
    if (pass_name, name) == ("cleanup", "a weight that callers may override"):
        assert [key for key, _, _ in inputs] == ["x"]
    else:
        assert inputs == signature(before)[0]
    # Passes that are no float rewrites change the numbers a little on purpose.
    tolerance = 1e-3 if is_rewrite(pass_name) else 0.1
    if ir.to_proto(after) == ir.to_proto(before):
        return
    for feeds, arrays in expected(name):
        actual = run(after, feeds)
        for key, array in arrays.items():
            largest = float(np.abs(array).max(initial=1e-6))
            np.testing.assert_allclose(
                actual[key], array, rtol=0, atol=tolerance * largest, err_msg=key
            )


def serialized(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


def test_the_odd_graphs_are_what_they_claim_to_be() -> None:
    """Each one is valid and runs; together they exercise most passes."""
    for name, model in GRAPHS.items():
        onnx.checker.check_model(ir.to_proto(model))
        assert expected(name)
    busy = {
        pass_name
        for pass_name in PASSES
        for model in GRAPHS.values()
        if ir.to_proto(rewritten(pass_name, model)) != ir.to_proto(model)
    }
    assert len(busy) > len(PASSES) / 2
