"""Perplexity by hand, and how two models' logits are compared."""

from __future__ import annotations

import math

import numpy as np
import pytest

from converters.decoder.perplexity import KEPT, cosine, increase, score
from edge_sdk.errors import EngineError

pytestmark = pytest.mark.converts

VOCAB = 7


def window(*tokens: int) -> np.ndarray:
    return np.array(tokens, np.int64)


def certain_of(following: dict[int, int], certainty: float):
    """A model that knows one token to follow each."""

    def logits(tokens: np.ndarray) -> np.ndarray:
        found = np.zeros((len(tokens), VOCAB), np.float32)
        for position, token in enumerate(tokens.tolist()):
            found[position, following.get(token, 0)] = certainty
        return found

    return logits


def test_model_that_knows_nothing_is_as_surprised_as_there_are_tokens() -> None:
    found = score([window(1, 2, 3), window(4, 5)], certain_of({}, 0.0))
    assert found.tokens == 3  # the first of each window is given
    assert found.perplexity == pytest.approx(VOCAB)


def test_loss_is_the_likelihood_of_what_follows() -> None:
    found = score([window(1, 2, 6)], certain_of({1: 2, 2: 3}, 2.0))
    total = math.log(math.exp(2) + VOCAB - 1)
    assert found.loss == pytest.approx((total - 2) + total)
    assert found.best.tolist() == [2, 3]


def test_large_logits_do_not_overflow() -> None:
    found = score([window(1, 2, 6)], certain_of({1: 2, 2: 3}, 1e30))
    assert math.isfinite(found.perplexity)
    assert found.loss == pytest.approx(1e30)


def test_logits_that_are_no_numbers_are_an_error() -> None:
    with pytest.raises(EngineError, match="not finite"):
        score([window(1, 2)], certain_of({1: 2}, float("nan")))


def test_first_logits_are_kept_and_no_more() -> None:
    long = window(*range(VOCAB)) if KEPT < VOCAB else window(*([1, 2] * KEPT))
    found = score([long, long], certain_of({1: 2}, 1.0))
    assert found.kept.shape == (KEPT, VOCAB)


def test_increase_is_relative_to_the_source() -> None:
    source = score([window(1, 2, 3)], certain_of({1: 2, 2: 3}, 3.0))
    worse = score([window(1, 2, 3)], certain_of({1: 2, 2: 3}, 2.0))
    assert increase(source, source) == 0
    assert increase(worse, source) == pytest.approx(worse.perplexity / source.perplexity - 1)


def test_cosine_does_not_see_a_constant_added_to_all_logits() -> None:
    logits = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
    assert cosine(logits + 100, logits) == pytest.approx(1, abs=1e-6)
    assert cosine(-logits, logits) == pytest.approx(-1, abs=1e-6)
