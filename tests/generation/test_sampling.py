from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from msgspec.structs import replace

from edge_sdk.bundle.record import Sampling
from edge_sdk.errors import EngineError, InputError
from edge_sdk.runtime.generation.sampling import (
    NUCLEUS_SIZES,
    Sampler,
    check_sampling,
    distribution,
    likeliest,
    penalized,
)

# Small whole numbers, so that equal logits and every boundary come up.
LOGITS = arrays(np.float32, st.integers(1, 70), elements=st.integers(-6, 6).map(float))
ANY = Sampling(temperature=1.0)
WIDE = np.random.default_rng(5).normal(size=50_000).astype(np.float32)


def probabilities(logits, temperature=1.0):
    scores = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    return scores / scores.sum()


def kept(logits, **filters) -> set[int]:
    return set(distribution(logits, replace(ANY, **filters)).tokens.tolist())


@given(LOGITS)
def test_temperature_zero_takes_the_likeliest_and_the_first_of_equals(logits):
    assert Sampler(Sampling()).next(logits) == logits.tolist().index(logits.max())


@given(LOGITS, st.integers(1, 80))
def test_top_k_keeps_the_k_likeliest_and_the_first_of_equals(logits, count):
    order = sorted(range(logits.size), key=lambda token: (-logits[token], token))
    assert distribution(logits, replace(ANY, top_k=count)).tokens.tolist() == order[:count]


@pytest.mark.parametrize("count", [1, 40, 3_000, 3_126, 49_999, 50_000, 60_000])
def test_top_k_of_a_large_vocabulary(count):
    assert kept(WIDE, top_k=count) == set(np.argsort(-WIDE)[:count].tolist())


@given(LOGITS, st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_set_that_reaches_it(logits, share):
    tokens = distribution(logits, replace(ANY, top_p=share)).tokens
    chances = probabilities(logits)
    assert chances[tokens].sum() >= share - 1e-6
    assert chances[tokens[:-1]].sum() < share + 1e-6
    left_out = np.delete(chances, tokens)
    assert left_out.size == 0 or left_out.max() <= chances[tokens].min()


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.9, 0.999999])
def test_top_p_of_a_large_vocabulary(share):
    order = np.argsort(-WIDE)
    needed = int(np.searchsorted(np.cumsum(probabilities(WIDE)[order]), share)) + 1
    found = len(kept(WIDE, top_p=share))
    assert abs(found - needed) <= max(2, needed // 10_000)


def test_top_p_cases_use_each_size_of_nucleus():
    sizes = [len(kept(WIDE, top_p=share)) for share in (0.001, 0.5, 0.9)]
    assert sizes[0] < NUCLEUS_SIZES[0] < NUCLEUS_SIZES[1] < sizes[2]
    assert len(kept(WIDE, top_p=0.1)) in range(*NUCLEUS_SIZES)


@given(LOGITS, st.floats(0.01, 1.0))
def test_min_p_drops_what_is_below_its_share_of_the_likeliest(logits, share):
    chances = probabilities(logits)
    near = np.abs(chances / chances.max() - share) < 1e-6
    wanted = chances >= share * chances.max()
    found = np.isin(np.arange(logits.size), list(kept(logits, min_p=share)))
    assert (found == wanted)[~near].all()


@given(LOGITS, st.integers(1, 9), st.floats(0.1, 0.9), st.floats(0.1, 0.9))
def test_filters_apply_one_after_the_other(logits, count, share, least):
    found = distribution(logits, replace(ANY, top_k=count, top_p=share, min_p=least))
    after_k = distribution(logits, replace(ANY, top_k=count)).tokens
    after_p = distribution(logits[after_k], replace(ANY, top_p=share)).tokens
    after_min = distribution(logits[after_k][after_p], replace(ANY, min_p=least)).tokens
    assert found.tokens.tolist() == after_k[after_p][after_min].tolist()


@given(LOGITS, st.floats(0.1, 3))
def test_weights_are_in_proportion_to_the_softmax(logits, temperature):
    found = distribution(logits, Sampling(temperature=temperature))
    np.testing.assert_allclose(
        found.weights / found.weights.sum(), probabilities(logits, temperature), atol=1e-5
    )


@given(LOGITS, st.floats(1.01, 5), st.floats(1.01, 5))
def test_larger_penalty_lowers_seen_tokens_further_and_leaves_the_others(logits, penalty, more):
    seen = set(range(0, logits.size, 2))
    once, twice = penalized(logits, seen, penalty), penalized(logits, seen, penalty * more)
    tokens = sorted(seen)
    assert (once[tokens] <= logits[tokens]).all()
    assert (twice[tokens] <= once[tokens]).all()
    others = np.delete(np.arange(logits.size), tokens)
    assert (once[others] == logits[others]).all()


def test_penalty_counts_the_prompt_and_what_was_drawn():
    logits = np.array([3.0, 2.9, 2.8, 0.0], np.float32)
    sampler = Sampler(Sampling(repetition_penalty=2.0), [0])
    assert [sampler.next(logits) for _ in range(3)] == [1, 2, 0]
    assert logits.tolist() == np.array([3.0, 2.9, 2.8, 0.0], np.float32).tolist()


@given(LOGITS, st.integers(0, 2**63))
def test_same_seed_gives_the_same_tokens(logits, seed):
    sampling = replace(ANY, seed=seed, top_p=0.9)
    first, second = Sampler(sampling), Sampler(sampling)
    assert [first.next(logits) for _ in range(5)] == [second.next(logits) for _ in range(5)]


def test_a_seed_gives_these_tokens_on_every_machine():
    sampler = Sampler(Sampling(temperature=0.8, top_k=50, top_p=0.95, seed=7))
    assert [sampler.next(WIDE) for _ in range(5)] == [5000, 2488, 39743, 32418, 24997]


def test_no_seed_gives_other_tokens_each_time():
    def tokens():
        sampler = Sampler(ANY)
        return [sampler.next(WIDE) for _ in range(8)]

    assert tokens() != tokens()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_probabilities(temperature):
    logits = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32))
    sampler = Sampler(Sampling(temperature=temperature, seed=11))
    counts = np.bincount([sampler.next(logits) for _ in range(20_000)], minlength=4)
    expected = probabilities(logits, temperature) * 20_000
    # Pearson's chi-squared with 3 degrees of freedom: 16.3 is exceeded once in a thousand seeds.
    assert ((counts - expected) ** 2 / expected).sum() < 16.3


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_float_type_is_drawn_from(dtype):
    logits = np.array([-3, 9, 1], dtype)
    assert Sampler(Sampling(temperature=0.01, seed=0)).next(logits) == 1
    assert Sampler(Sampling()).next(logits) == 1


def test_temperature_near_zero_is_the_likeliest():
    assert kept(WIDE, temperature=1e-30, min_p=0.5) == {likeliest(WIDE)}


@pytest.mark.parametrize("sampling", [Sampling(), replace(ANY, top_k=2), replace(ANY, top_p=0.9)])
def test_barred_tokens_are_never_drawn(sampling):
    logits = np.full(40, -np.inf, np.float32)
    logits[[7, 9]] = 1
    sampler = Sampler(sampling)
    assert {sampler.next(logits) for _ in range(40)} <= {7, 9}


@pytest.mark.parametrize("sampling", [Sampling(), ANY, Sampling(repetition_penalty=1.1)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_an_engine_error(sampling, value):
    logits = np.zeros(50, np.float32)
    logits[3] = value
    with pytest.raises(EngineError, match=f"logits: the model computed {value} for token 3"):
        Sampler(sampling).next(logits)


def test_logits_that_bar_every_token_are_an_engine_error():
    with pytest.raises(EngineError, match="-inf"):
        Sampler(ANY).next(np.full(5, -np.inf, np.float32))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": "warm"},
        {"top_k": -1},
        {"top_k": 1.5},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": True},
        {"seed": -1},
        {"seed": 0.5},
    ],
)
def test_values_out_of_range_name_field_and_range(wrong):
    [(field, value)] = wrong.items()
    with pytest.raises(InputError, match=rf"^{field}: .* is not a (whole )?number") as caught:
        Sampler(Sampling(**wrong))
    assert repr(value) in str(caught.value)


def test_values_at_the_ends_of_their_ranges_are_allowed():
    check_sampling(Sampling(temperature=0, top_k=0, top_p=1, min_p=1, seed=0))
