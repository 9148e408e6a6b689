from __future__ import annotations

import random

import numpy as np
import pytest

from edge_sdk.serving.drift import BINS, LEAST, MOST, Histogram, of_answer, of_outputs, psi


def drawn(weights: list[float], count: int, seed: int) -> tuple[int, ...]:
    histogram = Histogram()
    histogram.add(random.Random(seed).choices(range(len(weights)), weights, k=count))
    return histogram.counts


def test_large_samples_of_one_distribution_do_not_drift():
    assert psi(drawn([5, 3, 1], 5000, 0), drawn([5, 3, 1], 5000, 1)) < 0.01


@pytest.mark.parametrize("count", [LEAST, 200, 2000])
def test_few_requests_do_not_look_like_drift(count):
    found = [
        psi(drawn([1] * BINS, count, seed), drawn([1] * BINS, count, seed + 1000))
        for seed in range(40)
    ]
    assert np.mean(found) < 0.1
    assert max(found) < 0.6


def test_a_shift_is_found():
    assert psi(drawn([8, 1, 1], 500, 0), drawn([1, 1, 8], 500, 1)) > 0.25


def test_one_class_for_everything_is_found():
    assert psi(drawn([1, 1, 1, 1], 100, 0), drawn([1, 0, 0, 0], 100, 1)) > 0.25


def test_it_is_the_same_both_ways():
    one, other = drawn([8, 1, 1], 500, 0), drawn([1, 1, 8], 300, 1)
    assert psi(one, other) == pytest.approx(psi(other, one))


def test_too_few_observations_say_nothing():
    assert psi(drawn([1], LEAST - 1, 0), drawn([1], 1000, 1)) is None
    assert psi(drawn([1], 1000, 0), drawn([1], LEAST - 1, 1)) is None


def test_old_observations_fade():
    histogram = Histogram()
    histogram.add([0] * MOST)
    for _ in range(4 * MOST // 100):
        histogram.add([1] * 100)
        assert sum(histogram.counts) <= MOST
    assert histogram.counts[0] * 10 < histogram.counts[1]


def test_classes_are_counted_by_row():
    logits = np.array([[0, 1, 0], [5, 1, 0], [0, 0, 1]], np.float32)
    assert list(of_outputs({"logits": logits})) == [1, 0, 2]


def test_the_first_output_of_numbers_counts():
    outputs = {"text": np.array(["a"], object), "y": np.array([3]), "z": np.array([4])}
    assert list(of_outputs(outputs)) == [3]
    assert list(of_outputs({"text": np.array(["a"], object)})) == []


def test_numbers_are_counted_by_sign_and_magnitude():
    values = np.array([[1.0], [1.5], [-1.0], [100.0], [0.0], [np.nan], [np.inf]], np.float32)
    one, more, minus, hundred, zero, nan, infinite = of_outputs({"y": values})
    assert one == more
    assert len({one, minus, hundred, zero}) == 4
    assert nan == infinite == zero


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3), np.float32),
        np.float32(3),
        np.ones((2, 3, 4, 5), np.float16),
        np.array([True, False]),
        np.array([2**63], np.uint64),
        np.array([-1], np.int8),
        np.full((4, 1), -3e38, np.float32),
        np.ones((1000, 1000), np.float32),
    ],
)
def test_every_array_has_bins(array):
    found = list(of_outputs({"y": array}))
    assert all(0 <= index < BINS for index in found)
    assert len(found) <= 64


def test_an_answer_that_repeats_itself_differs_from_one_that_does_not():
    varied, repeated = of_answer(range(40)), of_answer([7] * 40)
    assert varied != repeated
    assert {of_answer([]), of_answer([1]), of_answer(range(5))}.isdisjoint({varied, repeated})
    assert all(0 <= of_answer(range(length)) < BINS for length in range(600))
