"""Versions are ordered as semantic versioning has it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from edge_sdk.bundle.versions import is_older

# The specification's own example, and numbers that would order differently as text.
RISING = (
    "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2",
    "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.9", "1.0.10", "1.9.0", "1.10.0", "2.0.0",
)  # fmt: skip


@pytest.mark.parametrize(("older", "newer"), list(pairwise(RISING)))
def test_versions_rise(older, newer):
    assert is_older(older, newer)
    assert not is_older(newer, older)


def test_builds_of_a_version_are_equal():
    assert not is_older("1.0.0+a", "1.0.0+b")
    assert not is_older("1.0.0+b", "1.0.0")


def test_names_that_are_no_semantic_versions_compare_too():
    assert is_older("2024.01", "2024.2")
    assert is_older("7", "seven")
