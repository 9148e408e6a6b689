"""Shared fixtures, and the rule for tests that need a Debian package.

``@pytest.mark.needs("skopeo", "skopeo")`` skips where the program is missing and prints
the install line; in CI, where ``.ci/run`` has installed everything, the same
absence is a failure.
"""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.brokers import certificates, mosquitto, start_mosquitto
from tests.programs import require

__all__ = ["certificates", "mosquitto", "start_mosquitto"]

# What else runs on a machine must not fail a property: examples have no time limit.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        require(*marker.args)
