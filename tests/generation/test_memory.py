from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.bundle.record import Generation, MemoryPlan
from edge_sdk.errors import InputError, MemoryLimitError
from edge_sdk.runtime.generation.memory import LEAST, plan_context

MIB = 2**20
SMOL = Generation(layers=32, kv_heads=5, head_dim=64, vocab=49152, context=2048)
FLOAT, INT8 = 81_920, 20_480  # bytes per token
PLAN = MemoryPlan(
    weights_mapped=20 * MIB,
    weights_private=200 * MIB,
    activations=20 * MIB,
    engine=60 * MIB,
    kv_per_token=FLOAT,
)

limits = st.integers(0, 1024 * MIB)
contexts = st.integers(1, 2048)
many_rows = st.integers(1, 16)


def capacity(limit, context, rows):
    try:
        return plan_context(PLAN, SMOL, limit, context=context, rows=rows).capacity
    except MemoryLimitError:
        return 0


def test_without_a_limit_the_whole_context_is_kept_in_float():
    plan = plan_context(PLAN, SMOL)
    assert (plan.capacity, plan.kv, plan.kv_bytes) == (2048, "float32", 2048 * FLOAT)
    assert plan.peak == 300 * MIB + plan.kv_bytes
    assert not plan.shortened


def test_int8_is_used_only_where_it_gives_the_wished_context():
    exact = PLAN.peak + 1000 * FLOAT
    assert plan_context(PLAN, SMOL, exact, context=1000).kv == "float32"
    below = plan_context(PLAN, SMOL, exact - 1, context=1000)
    assert (below.kv, below.capacity, below.kv_bytes) == ("int8", 1000, 1000 * INT8)


def test_context_shrinks_before_the_model_is_refused():
    plan = plan_context(PLAN, SMOL, PLAN.peak + 200 * INT8 + 5, context=1000)
    assert (plan.capacity, plan.kv, plan.shortened) == (200, "int8", True)


def test_without_an_int8_graph_the_float_context_shrinks():
    plan = plan_context(PLAN, SMOL, PLAN.peak + 200 * FLOAT, kv_types=("float32",))
    assert (plan.capacity, plan.kv) == (200, "float32")


def test_refusal_has_the_numbers():
    with pytest.raises(MemoryLimitError) as caught:
        plan_context(PLAN, SMOL, 256 * MIB, rows=2, where="assistant")
    text = str(caught.value)
    assert text.startswith("assistant: ")
    for line in (
        "weights, private",
        "200.0 MiB",
        "302.5 MiB",
        "short by",
        "46.5 MiB",
        "fewer streams",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("context", "rows", "named"), [(0, 1, "context"), (2049, 1, "context"), (16, 0, "streams")]
)
def test_impossible_wishes_are_refused_by_name(context, rows, named):
    with pytest.raises(InputError) as caught:
        plan_context(PLAN, SMOL, context=context, rows=rows)
    assert caught.value.where == named


@given(limit=limits, context=contexts, rows=many_rows)
def test_a_plan_never_exceeds_the_limit(limit, context, rows):
    try:
        plan = plan_context(PLAN, SMOL, limit, context=context, rows=rows)
    except MemoryLimitError:
        assert limit < PLAN.peak + rows * INT8 * LEAST
        return
    assert plan.peak <= limit
    assert plan.kv_bytes == plan.capacity * rows * (FLOAT if plan.kv == "float32" else INT8)
    assert 1 <= plan.capacity <= context
    assert plan.shortened == (plan.capacity < context)


@given(limit=limits, more=limits, context=contexts, longer=contexts, rows=many_rows)
def test_context_grows_with_the_limit_and_the_wish_and_shrinks_with_rows(
    limit, more, context, longer, rows
):
    found = capacity(limit, context, rows)
    assert capacity(limit + more, context, rows) >= found
    assert capacity(limit, max(context, longer), rows) >= found or found < LEAST
    assert capacity(limit, context, rows + 1) <= found
