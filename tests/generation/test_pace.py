from __future__ import annotations

import pytest

from edge_sdk.runtime.generation.pace import CHUNKS, STALL, Pace


def beside(step: float, token: float, steps: int = 400) -> tuple[float, float, list[int]]:
    """Steps with a long prompt beside: seconds per step, share of time for the prompt, chunks."""
    pace, spent, prompt, chunks = Pace(), 0.0, 0.0, []
    for _ in range(steps):
        pace.decoded(step)
        spent += step
        size = pace.chunk(running=True)
        if size:
            pace.prefilled(size, size * token)
            spent += size * token
            prompt += size * token
            chunks.append(size)
    return spent / steps, prompt / spent, chunks


@pytest.mark.parametrize(("step", "token"), [(0.0095, 0.0013), (0.02, 0.0013), (0.005, 0.0001)])
def test_running_streams_keep_25_tokens_per_second(step, token):
    per_step, _, _ = beside(step, token)
    assert per_step <= 1 / 25


def test_what_streams_leave_goes_to_the_prompt():
    _, share, _ = beside(0.0095, 0.0013)
    assert share >= 0.6


def test_slow_machine_still_computes_the_prompt():
    per_step, share, _ = beside(0.2, 0.05)
    assert 0.25 <= share <= 0.4
    assert per_step <= 0.2 * 1.6


def test_no_chunk_stalls_streams_for_long_where_a_smaller_one_would_not():
    _, _, chunks = beside(0.0095, 0.0025)
    assert set(chunks[1:]) == {max(c for c in CHUNKS if c * 0.0025 <= STALL)}


def test_prompt_alone_takes_the_longest_chunks():
    pace = Pace()
    pace.prefilled(64, 10.0)
    assert pace.chunk(running=False) == CHUNKS[0]


def test_credit_is_not_saved_up_while_nothing_prefills():
    pace = Pace()
    pace.prefilled(16, 0.016)
    for _ in range(1000):
        pace.decoded(0.001)
    sizes = []
    for _ in range(3):  # nothing drawn in between, so nothing is earned
        sizes.append(pace.chunk(running=True))
        pace.prefilled(64, 0.064)
    assert sizes == [64, 0, 0]
