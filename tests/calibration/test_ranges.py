"""Ranges: each method does to a long tail what it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from converters.calibration.ranges import Method, activation_range
from converters.calibration.statistics import HISTOGRAM_BINS, TensorStatistics, reach_of

METHODS: tuple[Method, ...] = ("minmax", "entropy", "percentile", "mse")


def seen(values: NDArray[np.float64]) -> TensorStatistics:
    low, high = float(values.min()), float(values.max())
    reach = reach_of(max(abs(low), abs(high)))
    counts, _ = np.histogram(values, HISTOGRAM_BINS, range=(-reach, reach))
    return TensorStatistics(low, high, counts)


def long_tail(seed: int = 0) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    return np.concatenate([random.standard_normal(100_000), [40.0, -25.0]])


def squared_error(values: NDArray[np.float64], low: float, high: float) -> float:
    scale = (high - low) / 255
    codes = np.clip(np.rint((values - low) / scale), 0, 255)
    return float(np.square(codes * scale + low - values).mean())


def test_minmax_keeps_everything() -> None:
    assert activation_range(seen(long_tail())) == (-25, 40)


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_outliers_are_given_up(method: Method) -> None:
    low, high = activation_range(seen(long_tail()), method)
    assert -9 < low < -2.5
    assert 2.5 < high < 9
    assert squared_error(long_tail()[:-2], low, high) < squared_error(long_tail()[:-2], -25, 40)


@pytest.mark.parametrize("method", METHODS)
def test_without_a_tail_nothing_is_given_up(method: Method) -> None:
    values = np.random.default_rng(1).uniform(-1, 3, 100_000)
    low, high = activation_range(seen(values), method)
    assert low == pytest.approx(-1, abs=0.02)
    assert high == pytest.approx(3, abs=0.05)


def test_mse_is_about_the_best_symmetric_threshold() -> None:
    random = np.random.default_rng(3)
    values = random.laplace(size=200_000)
    found = activation_range(seen(values), "mse")[1]
    thresholds = np.linspace(2, np.abs(values).max(), 60)
    errors = [squared_error(values, -t, t) for t in thresholds]
    assert squared_error(values, -found, found) < 1.05 * min(errors)


def test_percentile_keeps_its_share() -> None:
    values = np.random.default_rng(4).standard_normal(100_000)
    low, high = activation_range(seen(values), "percentile", percentile=90)
    assert np.mean((values >= low) & (values <= high)) == pytest.approx(0.9, abs=0.005)


@pytest.mark.parametrize("method", METHODS)
def test_dead_and_one_sided_tensors(method: Method) -> None:
    assert activation_range(seen(np.zeros(10)), method) == (0, 0)
    low, high = activation_range(seen(np.abs(long_tail())), method)
    assert low == 0
    assert high > 2
    low, high = activation_range(seen(-np.abs(long_tail())), method)
    assert low < -2
    assert high == 0


@given(
    st.lists(st.floats(-1e6, 1e6, allow_nan=False, width=32), min_size=1, max_size=60),
    st.sampled_from(METHODS),
)
def test_a_range_contains_zero_and_lies_within_what_was_seen(
    values: list[float], method: Method
) -> None:
    statistics = seen(np.array(values))
    low, high = activation_range(statistics, method)
    assert min(statistics.low, 0) <= low <= 0 <= high <= max(statistics.high, 0)
    if statistics.absmax > 0:
        assert low < high
