"""What may not be written, whatever is likeliest."""

from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.bundle.record import Decoding, Sampling
from edge_sdk.runtime.generation.sampling import Sampler
from edge_sdk.runtime.seq2seq.rules import RuledSampler, repeating

DESCENDING = np.arange(8, 0, -1).astype(np.float32)  # token 0 is the likeliest


def drawn(count: int, **rules) -> list[int]:
    decoding = Decoding(start=(7,), eos=(0,), context=64, **rules)
    sampler = RuledSampler(decoding, Sampler(Sampling()), (7,))
    return [sampler.next(DESCENDING) for _ in range(count)]


def test_suppressed_tokens_are_never_drawn():
    assert drawn(2, suppress=(0, 1)) == [2, 2]


def test_begin_suppressed_tokens_are_not_drawn_first():
    assert drawn(3, begin_suppress=(0,)) == [1, 0, 0]


def test_output_does_not_end_before_its_least_length():
    assert drawn(3, min_length=3) == [1, 1, 0]  # the start token counts


def test_run_of_the_input_is_not_written():
    decoding = Decoding(start=(7,), eos=(0,), context=64, encoder_no_repeat_ngram=2)
    sampler = RuledSampler(decoding, Sampler(Sampling()), (7,), [7, 0, 0, 1])
    assert [sampler.next(DESCENDING) for _ in range(3)] == [1, 0, 2]


def test_bad_words_of_several_tokens_do_not_appear():
    assert drawn(4, bad_words=((7, 0), (1, 0, 1))) == [1, 0, 0, 0]
    assert drawn(3, bad_words=((1, 2),), suppress=(0,)) == [1, 1, 1]


def test_no_pair_appears_twice():
    pairs = list(zip(found := [7, *drawn(12, no_repeat_ngram=2)], found[1:]))  # noqa: B905
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize(
    ("tokens", "length", "barred"),
    [
        ([1, 2, 3, 1, 2], 3, [3]),
        ([1, 2, 3, 1, 2], 2, [3]),
        ([1, 1], 1, [1, 1]),
        ([1, 2], 3, []),
        ([1, 2, 1], 0, []),
    ],
)
def test_runs_that_were_there_before_are_not_completed(tokens, length, barred):
    assert repeating(tokens, length) == barred


def test_runs_of_the_source_are_not_completed():
    assert repeating([9, 1], 2, [1, 2, 1, 3]) == [2, 3]
    assert repeating([9], 1, [4]) == [4]
    assert repeating([9], 3, [9, 9, 9]) == []


def test_logits_stay_as_they_are():
    before = DESCENDING.copy()
    drawn(2, suppress=(0,))
    assert (before == DESCENDING).all()
