"""Merge, difference and time stamps of decoded JSON: the arithmetic under a shadow.

Nothing here changes an argument; results share what was not touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_sdk.shadow.document import Object, Section

_MISSING = object()


def merge(old: Object, patch: Object) -> Object:
    """Writes the fields that a patch names into an object.

    Objects are merged, anything else is replaced, and ``null`` deletes a field
    (JSON merge patch, RFC 7396).
    """
    new = old.copy()
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        elif isinstance(value, dict):
            before = new.get(key)
            new[key] = merge(before if isinstance(before, dict) else {}, value)
        else:
            new[key] = value
    return new


def restamp(old: Object, patch: Object, before: Object, leaf: Object) -> Object:
    """Metadata after a merge.

    Args:
        old: Metadata before.
        patch: What is merged.
        before: State before: only it tells an object from a leaf.
        leaf: The time stamp of every field that the patch names.
    """
    new = old.copy()
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        elif isinstance(value, dict):
            inner = before.get(key)
            if isinstance(inner, dict):
                new[key] = restamp(new[key], value, inner, leaf)
            else:
                new[key] = restamp({}, value, {}, leaf)
        else:
            new[key] = stamp(value, leaf)
    return new


def stamp(value: Any, leaf: Object) -> Any:
    """Metadata in the shape of a value: the same time stamp for every leaf, nulls too."""
    if isinstance(value, dict):
        return {key: stamp(inner, leaf) for key, inner in value.items()}
    if isinstance(value, list):
        return [stamp(inner, leaf) for inner in value]
    return leaf


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; unlike in Python, ``true`` is not 1."""
    if one is other:
        return True
    if isinstance(one, bool) or isinstance(other, bool):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def delta(desired: Section, reported: Object) -> Section:
    """What is desired and not reported, with its metadata; fields only reported do not count."""
    state: Object = {}
    metadata: Object = {}
    for key, want in desired.state.items():
        have = reported.get(key, _MISSING)
        if isinstance(want, dict) and isinstance(have, dict):
            inner = delta(Section(want, desired.metadata[key]), have)
            if inner.state:
                state[key] = inner.state
                metadata[key] = inner.metadata
        elif not same(want, have):
            state[key] = want
            metadata[key] = desired.metadata[key]
    return Section(state, metadata)


def patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> Object:
    """The smallest patch that makes one object of another; empty where they are equal."""
    changes: Object = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key, _MISSING)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := patch(before, value):
                changes[key] = inner
        elif not same(value, before):
            changes[key] = value
    return changes
