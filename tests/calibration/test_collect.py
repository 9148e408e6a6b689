"""Calibration sees what runs, needs no more than one call's memory, and forgets the order."""

from __future__ import annotations

import numpy as np
import pytest

from converters.calibration.collect import collect, wanted
from converters.calibration.statistics import HISTOGRAM_BINS, Statistics, decode, encode, reach_of
from converters.dataset import Dataset
from edge_sdk.bundle.record import State
from edge_sdk.errors import BundleError
from tests.passes.models import Array, build, graph, normal

LAYER = graph("(float[N,4] x) => (float[N,3] y)", "y = MatMul (x, w)", w=normal(4, 3))


def dataset(*calls: Array) -> Dataset:
    return Dataset(tuple(({"x": call},) for call in calls), None, "user", "sha256:" + "0" * 64)


def test_ranges_channels_and_counts_are_those_of_the_data() -> None:
    calls = [normal(5, 4, seed=i, scale=10.0 ** (i - 2)) for i in range(5)]
    seen = collect(LAYER, dataset(*calls))["x"]
    every = np.concatenate(calls)
    assert (seen.low, seen.high) == (every.min(), every.max())
    assert seen.histogram is not None
    assert seen.channel_absmax is not None
    expected, _ = np.histogram(every, HISTOGRAM_BINS, range=(-seen.reach, seen.reach))
    # A widened histogram may hold a value on an edge in the bin beside it.
    assert np.abs(np.cumsum(seen.histogram) - np.cumsum(expected)).max() <= 1
    np.testing.assert_allclose(seen.channel_absmax, np.abs(every).max(axis=0), rtol=1e-3)


def test_order_of_the_samples_does_not_matter() -> None:
    calls = [normal(5, 4, seed=i, scale=10.0 ** (i - 2)) for i in range(5)]
    assert encode(collect(LAYER, dataset(*calls))) == encode(collect(LAYER, dataset(*calls[::-1])))


def test_values_that_are_not_finite_and_empty_calls_are_left_out() -> None:
    wild = np.array([[np.nan, np.inf, 2, -1]], np.float32)
    seen = collect(LAYER, dataset(wild, np.zeros((0, 4), np.float32)))
    assert (seen["x"].low, seen["x"].high) == (-1, 2)
    assert collect(LAYER, dataset(np.zeros((0, 4), np.float32))).tensors == {}


def test_attention_masks_do_not_overflow() -> None:
    seen = collect(LAYER, dataset(np.full((1, 4), np.finfo(np.float32).min, np.float32)))["x"]
    assert seen.reach == 2.0**128
    assert seen.histogram is not None
    assert seen.histogram.sum() == 4


def test_an_axis_of_varying_length_has_no_channels() -> None:
    model = graph("(float[N,S] x) => (float[N,S] y)", "y = Relu (x)")
    calls = [normal(2, 3), normal(2, 5), normal(2, 3)]
    assert collect(model, dataset(*calls), names=["y"])["y"].channel_absmax is None


def test_states_roll_from_their_initial_value() -> None:
    model = graph("(float[2] x, float[2] h) => (float[2] y)", "y = Add (x, h)")
    ones = np.ones(2, np.float32)
    data = Dataset((({"x": ones},) * 3,), None, "user", "sha256:" + "0" * 64)
    states = (State(input="h", output="y"),)
    assert collect(model, data, states, ["y"])["y"].high == 3
    assert collect(model, data, states, ["y"], {"h": 10 * ones})["y"].high == 13


def test_only_named_values_and_only_the_main_graph_are_observed() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    main (bool c, float[2,4] x) => (float[2,4] y) {
        h = MatMul (x, w)
        y = If (c) <
            then_branch = a () => (float[2,4] t) { u = MatMul (h, w) t = Neg (u) },
            else_branch = b () => (float[2,4] e) { e = Relu (h) }
        >
    }"""
    model = build(text, w=normal(4, 4))
    feeds = {"c": np.array(True), "x": normal(2, 4)}
    data = Dataset(((feeds,),), None, "user", "sha256:" + "0" * 64)
    assert wanted(model) == ("x", "h")
    assert set(collect(model, data).tensors) == {"x", "h"}
    assert set(collect(model, data, names=("h", "u", "nowhere")).tensors) == {"h"}
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_stored_statistics_come_back_equal() -> None:
    statistics = collect(LAYER, dataset(normal(5, 4)))
    data = encode(statistics)
    assert encode(decode(data)) == data
    assert set(decode(encode(statistics, ["x", "gone"])).tensors) == {"x"}
    with pytest.raises(BundleError, match="not calibration statistics"):
        decode(b"[1")
    assert encode(Statistics()) == b"{}"


@pytest.mark.parametrize(
    ("magnitude", "reach"), [(0, 2.0**-100), (1, 1), (1.01, 2), (4, 4), (5, 8)]
)
def test_reach_is_the_power_of_two_above(magnitude: float, reach: float) -> None:
    assert reach_of(magnitude) == reach
