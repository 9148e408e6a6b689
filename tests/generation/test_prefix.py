from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.runtime.generation.prefix import FRESH, Place, Rows, common_prefix

SYSTEM = list(range(40))


def finished(rows: Rows, prompt: list[int], answer: list[int], adapter: str | None = None) -> int:
    """A sequence that came and went; its row."""
    place = rows.take(prompt, adapter, ())
    assert place is not None
    rows[place.row].tokens = prompt + answer
    rows.touch(place.row)
    return place.row


def test_first_sequence_computes_everything():
    assert Rows(2).take([1, 2, 3, 4], None, ()) == Place(0, 0, None)


def test_no_row_while_all_are_busy():
    assert Rows(2).take([1, 2, 3], None, {0, 1}) is None


def test_conversation_is_continued_in_its_own_row():
    rows = Rows(3)
    row = finished(rows, SYSTEM, [100, 101])
    assert rows.take([*SYSTEM, 100, 101, 102, 103], None, ()) == Place(row, 42, None)


def test_last_tokens_of_a_prompt_are_always_computed():
    rows = Rows(1)
    finished(rows, SYSTEM, [])
    place = rows.take(SYSTEM, None, ())
    assert place == Place(0, len(SYSTEM) - FRESH, None)
    assert rows[0].tokens == SYSTEM[:-FRESH]


def test_new_conversation_copies_the_system_prompt_and_spares_the_old_one():
    rows = Rows(2)
    old = finished(rows, SYSTEM, list(range(100, 140)))
    place = rows.take([*SYSTEM, 7, 8, 9], None, ())
    assert place == Place(1 - old, len(SYSTEM), old)
    assert len(rows[old].tokens) == 80


def test_prefix_of_a_running_sequence_is_copied():
    rows = Rows(2)
    rows.take([*SYSTEM, 1, 2], None, ())
    rows[0].tokens = [*SYSTEM, 1, 2]
    assert rows.take([*SYSTEM, 3, 4], None, {0}) == Place(1, len(SYSTEM), 0)
    assert rows[1].tokens == []  # until they are copied


def test_only_row_keeps_the_system_prompt():
    rows = Rows(1)
    finished(rows, SYSTEM, list(range(100, 140)))
    assert rows.take([*SYSTEM, 7, 8, 9], None, ()) == Place(0, len(SYSTEM), None)


def test_row_unused_for_longest_is_given_up():
    rows = Rows(2)
    a = finished(rows, [1] * 10, [])
    b = finished(rows, [2] * 10, [])
    finished(rows, [1] * 10 + [3, 4], [])  # a is used again
    place = rows.take([5] * 10, None, ())
    assert place is not None
    assert (place.row, a) == (b, 1 - b)


def test_system_prompt_in_use_outlives_other_prompts():
    rows = Rows(2)
    finished(rows, SYSTEM, [])
    for talk in range(5):
        finished(rows, [1000 + talk] * 30, [])
        place = rows.take([*SYSTEM, 500 + talk, 1], None, ())
        assert place is not None
        assert place.cached == len(SYSTEM)
        rows[place.row].tokens = [*SYSTEM, 500 + talk, 1]
        rows.touch(place.row)


def test_another_adapter_shares_nothing():
    rows = Rows(2)
    finished(rows, SYSTEM, [], adapter="pirate")
    place = rows.take([*SYSTEM, 1, 2], None, ())
    assert place is not None
    assert place.cached == 0


@given(st.lists(st.integers(0, 2), max_size=8), st.lists(st.integers(0, 2), max_size=8))
def test_common_prefix_is_the_longest(one, other):
    count = common_prefix(one, other)
    assert one[:count] == other[:count]
    assert count == min(len(one), len(other)) or one[count] != other[count]


prompts = st.lists(st.integers(0, 1), min_size=1, max_size=12)


@given(st.integers(1, 4), st.lists(st.tuples(prompts, st.booleans()), max_size=20))
def test_what_is_called_cached_really_is(count, events):
    rows = Rows(count)
    busy: list[int] = []
    for prompt, ends in events:
        before = [list(rows[i].tokens) for i in range(count)]
        place = rows.take(prompt, None, busy)
        if place is None:
            assert len(busy) == count
            busy.pop(0)
            continue
        assert place.row not in busy
        source = place.row if place.source is None else place.source
        assert before[source][: place.cached] == prompt[: place.cached]
        assert place.cached <= max(0, len(prompt) - FRESH)
        rows[place.row].tokens = list(prompt)
        if not ends:
            busy.append(place.row)
