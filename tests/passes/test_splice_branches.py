"""Decided branches are spliced into the graph around them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converters.passes.splice_branches import SpliceBranches, SpliceBranchesOptions
from edge_sdk.errors import RecipeError
from tests.passes.models import graph, improved, normal, ops, run, untouched, weight_bytes

# Sibling branches use the name h for different values.
RATES = """
    wide = Equal (rate, k16)
    scaled = Relu (x)
    y, z = If (wide) <
        then_branch = t () => (float[N,32] a, float[N,32] o) {
            h = MatMul (x, w16)
            a = Add (h, x)
            o = Identity (scaled)
        },
        else_branch = e () => (float[N,32] b, float[N,32] p) {
            h = MatMul (x, w8)
            narrow = Equal (rate, k8)
            b = If (narrow) <
                then_branch = tt () => (float[N,32] c) { g = Relu (x) c = Abs (g) },
                else_branch = ee () => (float[N,32] d) { d = Neg (x) }
            >
            p = Relu (h)
        }
    >
"""


def rates() -> ir.Model:
    return graph(
        "(float[N,32] x, int64 rate) => (float[N,32] y, float[N,32] z)",
        RATES,
        w16=normal(32, 32),
        w8=normal(32, 32, seed=1),
        k16=np.array(16000),
        k8=np.array(8000),
    )


@pytest.mark.parametrize(
    ("rate", "left"),
    [
        (16000, {"MatMul": 1, "Add": 1, "Relu": 1}),
        (8000, {"MatMul": 1, "Relu": 2, "Abs": 1}),
        (4000, {"MatMul": 1, "Relu": 1, "Neg": 1}),
    ],
)
def test_fixing_an_input_selects_its_branch_and_drops_the_other(
    rate: int, left: dict[str, int]
) -> None:
    before = rates()
    options = SpliceBranchesOptions(fixed={"rate": rate})
    feeds = {"x": normal(3, 32), "rate": np.array(rate)}
    after = improved(SpliceBranches(options), before, feeds)
    assert {op: count for op, count in ops(after).items() if op != "Identity"} == left
    assert weight_bytes(after) < weight_bytes(before) / 1.9


def test_the_fixed_input_stays_in_the_signature_and_is_not_read() -> None:
    model = rates()
    SpliceBranches(SpliceBranchesOptions(fixed={"rate": 16000}))(model)
    x = normal(3, 32)
    first = run(model, {"x": x, "rate": np.array(16000)})
    second = run(model, {"x": x, "rate": np.array(8000)})
    np.testing.assert_array_equal(first["y"], second["y"])


def test_nothing_is_decided_without_leave() -> None:
    assert untouched(SpliceBranches(), rates())


def test_a_condition_on_known_dimensions_is_decided() -> None:
    model = graph(
        "(float[N,8] x) => (float[N,8] y)",
        """
        s = Shape (x)
        one = Constant <value_int = 1> ()
        width = Gather (s, one)
        eight = Constant <value_int = 8> ()
        two = Constant <value_float = 2.0> ()
        fits = Equal (width, eight)
        y = If (fits) <
            then_branch = t () => (float[N,8] a) { a = Mul (x, two) },
            else_branch = e () => (float[N,8] b) { b = Identity (x) }
        >
        """,
    )
    after = improved(SpliceBranches(), model)
    assert set(ops(after)) <= {"Mul", "Constant"}


def test_a_branch_with_its_own_initializers_inside_a_loop() -> None:
    model = graph(
        "(int64 n, float[3,8] x) => (float[3,8] y)",
        """
        true = Constant <value_int = 1> ()
        c = Cast <to = 9> (true)
        y = Loop (n, , x) <body = b (int64 i, bool k, float[3,8] s) => (bool k2, float[3,8] s2) {
            k2 = Identity (k)
            s2 = If (c) <
                then_branch = t () => (float[3,8] a) { p = MatMul (s, w) a = Tanh (p) },
                else_branch = e () => (float[3,8] b) { b = Identity (s) }
            >
        }>
        """,
        w=normal(8, 8),
    )
    feeds = {"n": np.array(3), "x": normal(3, 8)}
    after = improved(SpliceBranches(), model, feeds)
    assert "If" not in ops(after)
    assert ops(after)["Loop"] == 1


def test_a_branch_that_returns_the_same_outer_value_twice() -> None:
    model = graph(
        "(float[N,8] x) => (float[N,8] y, float[N,8] z)",
        """
        one = Constant <value_int = 1> ()
        c = Cast <to = 9> (one)
        h = Relu (x)
        y, z = If (c) <
            then_branch = t () => (float[N,8] a, float[N,8] b) {
                a = Identity (h)
                b = Identity (h)
            },
            else_branch = e () => (float[N,8] d, float[N,8] f) { d = Abs (x) f = Neg (x) }
        >
        """,
    )
    assert "If" not in ops(improved(SpliceBranches(), model))


@pytest.mark.parametrize("name", ["x", "absent"])
def test_only_scalar_inputs_can_be_fixed(name: str) -> None:
    with pytest.raises(RecipeError, match="cannot be fixed") as caught:
        SpliceBranches(SpliceBranchesOptions(fixed={name: 1}))(rates())
    assert "rate" in (caught.value.remedy or "")
