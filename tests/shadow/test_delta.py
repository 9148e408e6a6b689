"""What counts as a difference between desired and reported."""

from __future__ import annotations

from typing import Any

import pytest

from tests.shadow.cloud import Cloud

CASES: dict[str, tuple[Any, Any, Any]] = {
    # name: desired, reported, delta
    "boolean flip": ({"on": True}, {"on": False}, {"on": True}),
    "extra reported keys": ({"on": True}, {"on": True, "off": 1}, None),
    "empty sections": ({}, {}, None),
    "empty desired": ({}, {"a": 1}, None),
    "empty report": ({"a": 1}, {}, {"a": 1}),
    "null report": ({"a": 1}, {"a": None}, {"a": 1}),
    "null section": ({"a": 1}, None, {"a": 1}),
    "missing key": ({"a": 1, "b": 2}, {"a": 1}, {"b": 2}),
    "changed key": ({"a": 1}, {"a": 2}, {"a": 1}),
    "list shrinks": ({"l": [1]}, {"l": [1, 2]}, {"l": [1]}),
    "list grows": ({"l": [1, 2]}, {"l": [1]}, {"l": [1, 2]}),
    "list changes": ({"l": [1, 3]}, {"l": [1, 2]}, {"l": [1, 3]}),
    "list reordered": ({"l": [1, 2]}, {"l": [2, 1]}, {"l": [1, 2]}),
    "list equal": ({"l": [1, {"a": [2]}]}, {"l": [1, {"a": [2]}]}, None),
    "nested list shrinks": ({"a": {"l": [1]}}, {"a": {"l": [1, 2]}}, {"a": {"l": [1]}}),
    "append in a nested list": ({"l": [[1], [2, 3]]}, {"l": [[1], [2]]}, {"l": [[1], [2, 3]]}),
    "object in a list": ({"l": [{"a": 1}]}, {"l": [{"a": 1, "b": 2}]}, {"l": [{"a": 1}]}),
    "nested leaf changes": (
        {"a": {"b": {"c": 1, "d": 2}}},
        {"a": {"b": {"c": 9, "d": 2}}},
        {"a": {"b": {"c": 1}}},
    ),
    "added sibling at the top": ({"a": {"b": 1}, "n": 1}, {"a": {"b": 1}}, {"n": 1}),
    "added sibling below": ({"a": {"b": 1, "n": 1}}, {"a": {"b": 1}}, {"a": {"n": 1}}),
    "insert an empty object": ({"a": {}}, {"b": 1}, {"a": {}}),
    "empty object and full": ({"a": {}}, {"a": {"b": 1}}, None),
    "value becomes an empty object": ({"a": {}}, {"a": 1}, {"a": {}}),
    "value becomes an object": ({"a": {"b": 1}}, {"a": 1}, {"a": {"b": 1}}),
    "object becomes a value": ({"a": 1}, {"a": {"b": 1}}, {"a": 1}),
    "object becomes a list": ({"a": []}, {"a": {}}, {"a": []}),
    "true is not one": ({"a": True}, {"a": 1}, {"a": True}),
    "false is not zero": ({"a": [0]}, {"a": [False]}, {"a": [0]}),
    "one is one": ({"a": 1}, {"a": 1.0}, None),
    "text is not a number": ({"a": "1"}, {"a": 1}, {"a": "1"}),
    "integers beyond doubles": ({"a": 2**53 + 1}, {"a": 2**53}, {"a": 2**53 + 1}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("desired_first", [True, False])
def test_delta(case: str, desired_first: bool):
    desired, reported, delta = CASES[case]
    cloud = Cloud()
    steps = [{"desired": desired}, {"reported": reported}]
    for step in steps if desired_first else reversed(steps):
        replies = cloud.update(step)
    document = cloud.get()
    if delta is None:
        assert "delta" not in replies
        assert "delta" not in document["state"]
    else:
        assert replies["delta"]["state"] == document["state"]["delta"] == delta


@pytest.mark.parametrize("case", CASES)
def test_reporting_the_delta_empties_it(case: str):
    desired, reported, delta = CASES[case]
    cloud = Cloud()
    cloud.update({"desired": desired, "reported": reported})
    if delta is not None:
        assert "delta" not in cloud.update({"reported": delta})
