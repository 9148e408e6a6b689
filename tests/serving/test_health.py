from __future__ import annotations

import random

import pytest

from edge_sdk.serving.health import BUCKETS, ERROR, SLOTS, Window, bucket_of, upper_ms


def test_quantiles_are_right_within_half_a_bucket():
    rng = random.Random(0)
    latencies = sorted(rng.lognormvariate(3, 2) for _ in range(1000))
    window = Window(60, begun=0)
    for latency in latencies:
        window.answered(1, latency)
    figures = window.snapshot(2)
    assert figures.p50_ms == pytest.approx(latencies[499], rel=ERROR * 1.001)
    assert figures.p95_ms == pytest.approx(latencies[949], rel=ERROR * 1.001)


@pytest.mark.parametrize("latency", [1e-9, 0.0, 0.01, 0.011, 1.0, 1e6, 1e12])
def test_every_latency_has_a_bucket(latency):
    bucket = bucket_of(latency)
    assert 0 <= bucket < BUCKETS
    assert latency <= upper_ms(bucket) * 1.000001 or bucket == BUCKETS - 1


def test_one_request_is_both_quantiles():
    window = Window(60, begun=0)
    window.answered(0, 10)
    figures = window.snapshot(0)
    assert figures.p50_ms == figures.p95_ms == pytest.approx(10, rel=ERROR * 1.001)


def test_nothing_is_said_of_no_requests():
    figures = Window(60, begun=5).snapshot(7)
    assert (figures.requests, figures.p50_ms, figures.p95_ms) == (0, None, None)
    assert figures.window_s == 2


def test_failures_count_as_requests_and_have_no_latency():
    window = Window(60, begun=0)
    window.failed(1)
    window.failed(1)
    window.answered(1, 5)
    figures = window.snapshot(1)
    assert (figures.requests, figures.errors) == (3, 2)
    assert figures.p95_ms == pytest.approx(5, rel=ERROR * 1.001)


def test_what_is_older_than_the_window_is_forgotten():
    window = Window(60, begun=0)
    window.answered(0, 1000)
    window.failed(0)
    window.answered(50, 1)
    assert window.snapshot(53).requests == 3
    figures = window.snapshot(61)
    assert (figures.requests, figures.errors) == (1, 0)
    assert figures.p95_ms == pytest.approx(1, rel=ERROR * 1.001)
    assert window.snapshot(1000).requests == 0
    assert window.totals().answered == 2
    assert window.totals().errors == 1


def test_a_slot_is_emptied_before_it_is_used_again():
    window = Window(SLOTS, begun=0)  # a slot per second
    for second in range(5 * SLOTS):
        window.answered(second, 1)
        assert window.snapshot(second).requests == min(second + 1, SLOTS)


def test_a_clock_that_was_read_before_another_thread_counted_does_no_harm():
    window = Window(SLOTS, begun=0)
    window.answered(SLOTS, 1)
    window.answered(0.5, 1)
    assert window.snapshot(SLOTS).requests == 2
