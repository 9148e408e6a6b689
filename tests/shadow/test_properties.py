"""What holds for any JSON."""

from __future__ import annotations

import json
import math
from functools import reduce
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from edge_sdk.shadow import algebra, document, sections
from edge_sdk.shadow.document import Section, Shadow
from edge_sdk.shadow.requests import Limits, Request
from edge_sdk.shadow.topics import OPERATIONS, Address
from tests.shadow.cloud import ADDRESS, Cloud

keys = st.sampled_from(["a", "b", "c", "timestamp", ""]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=4
)
scalars = (
    st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)


def values(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    arrays = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=4)
    return st.recursive(
        leaves | arrays, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=8
    )


objects = st.dictionaries(keys, values(scalars), max_size=4)
patches = st.dictionaries(keys, values(scalars | st.none()), max_size=4)
anything = st.recursive(
    st.none() | scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
WIDE = Limits(state_bytes=1_000_000, levels=50)


def leaves(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(leaves, value.values()))
    return sum(map(leaves, value)) if isinstance(value, list) else 1


def stamped_alike(state: Any, metadata: Any) -> bool:
    """Whether metadata has the shape of a state."""
    if isinstance(state, dict):
        return state.keys() == metadata.keys() and all(
            stamped_alike(state[key], metadata[key]) for key in state
        )
    if isinstance(state, list):
        return len(state) == len(metadata) and all(map(stamped_alike, state, metadata))
    return set(metadata) == {"timestamp"}


@given(objects, patches)
def test_merge_is_idempotent_and_leaves_no_null(old: Any, patch: Any):
    text = json.dumps(old)
    new = sections.merge(old, patch)
    assert json.dumps(old) == text
    assert sections.same(sections.merge(new, patch), new)
    assert "null" not in json.dumps(new).replace('"null"', "")
    for key in old.keys() - patch.keys():
        assert new[key] is old[key]


@given(objects, st.lists(patches, max_size=5))
def test_patches_that_come_once_more_in_their_order_change_nothing(old: Any, again: list[Any]):
    once = reduce(sections.merge, again, old)
    assert sections.same(reduce(sections.merge, again, once), once)


@given(objects, objects)
def test_merging_the_patch_between_two_objects_gives_the_second(old: Any, new: Any):
    changes = sections.patch(old, new)
    assert sections.same(sections.merge(old, changes), new)
    assert (changes == {}) == sections.same(old, new)


@given(objects, patches)
def test_metadata_keeps_the_shape_of_the_state(old: Any, patch: Any):
    metadata = sections.stamp(old, {"timestamp": 1})
    new = sections.merge(old, patch)
    stamps = sections.restamp(metadata, patch, old, {"timestamp": 2})
    assert stamped_alike(new, stamps)


@given(objects, objects)
def test_reporting_the_delta_leaves_none(desired: Any, reported: Any):
    wanted = Section(desired, sections.stamp(desired, {"timestamp": 1}))
    delta = sections.delta(wanted, reported)
    assert stamped_alike(delta.state, delta.metadata)
    assert sections.delta(wanted, sections.merge(reported, delta.state)).state == {}
    assert sections.delta(wanted, desired).state == {}
    assert leaves(delta.state) <= leaves(desired)


@given(anything, anything)
@example(True, 1)
@example([False], [0])
@example(1, 1.0)
def test_sameness_is_that_of_json(one: Any, other: Any):
    def plain(value: Any) -> Any:
        """With types that Python tells apart."""
        if isinstance(value, bool):
            return ("bool", value)
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, list) else value

    assert sections.same(one, other) == (plain(one) == plain(other))
    assert sections.same(one, json.loads(json.dumps(one)))


@given(st.lists(st.fixed_dictionaries({}, optional={"desired": patches, "reported": patches})))
def test_a_history_of_updates_is_the_merge_of_them(states: list[Any]):
    cloud = Cloud(limits=WIDE)
    expected: dict[str, Any] = {"desired": {}, "reported": {}}
    for number, state in enumerate(states, start=1):
        assert cloud.update(state)["accepted"]["version"] == number
        for name, patch in state.items():
            expected[name] = sections.merge(expected[name], patch)
    if states:
        found = cloud.get()["state"]
        found.pop("delta", None)
        assert found == {name: section for name, section in expected.items() if section}


@given(objects, objects, st.none() | st.integers(0, 2**40), st.integers(1, 2**70))
def test_stored_shadow_comes_back(desired: Any, reported: Any, deleted: Any, version: int):
    stamp = {"timestamp": 7}
    shadow = Shadow(
        version,
        7,
        Section(desired, sections.stamp(desired, stamp)),
        Section(reported, sections.stamp(reported, stamp)),
        deleted,
    )
    assert document.decode(document.encode(shadow)) == shadow


def json_or_bytes() -> st.SearchStrategy[bytes]:
    """Requests that are nearly right, JSON of any kind, and anything."""
    nearly = st.fixed_dictionaries(
        {},
        optional={
            "state": st.fixed_dictionaries(
                {}, optional={"desired": anything, "reported": anything, "delta": anything}
            )
            | anything,
            "version": st.integers(-1, 4) | anything,
            "clientToken": st.text(st.characters(exclude_categories=["Cs"])) | anything,
            "other": anything,
        },
    )
    text = (nearly | anything).map(json.dumps)
    cut = st.tuples(text, st.integers(0, 40)).map(lambda pair: pair[0][: -pair[1] or None])
    return (text | cut).map(str.encode) | st.binary() | text.map(lambda t: t.encode("utf-16"))


@given(
    st.lists(st.tuples(st.sampled_from(OPERATIONS), json_or_bytes()), max_size=6),
    st.text(max_size=200),
    st.integers(0, 2**40),
)
def test_no_request_raises_and_each_has_one_answer(calls: Any, name: str, now: int):
    shadow = None
    for operation, payload in calls:
        for address in (Address("$aws/things", name, name), ADDRESS):
            outcome = algebra.apply(shadow, Request(address, operation, payload), now)
            answers = [json.loads(reply.payload) for reply in outcome.replies]
            suffixes = [reply.suffix for reply in outcome.replies]
            assert suffixes[0] in ("accepted", "rejected")
            assert set(suffixes[1:]) <= {"delta", "documents"}
            check_finite(answers)
            if suffixes[0] == "rejected":
                assert suffixes == ["rejected"]
                assert answers[0]["code"] in (400, 404, 409, 413, 415)
                assert outcome.shadow is shadow
            elif operation == "update":
                assert outcome.shadow
                assert answers[0]["version"] == outcome.shadow.version
                assert outcome.shadow.version == (shadow.version if shadow else 0) + 1
            shadow = outcome.shadow


def check_finite(value: Any) -> None:
    """Replies are strict JSON."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            check_finite(inner)
    assert not isinstance(value, float) or math.isfinite(value)
