"""Shared fixtures, and the rule for tests that need a Debian package.

``@pytest.mark.needs("skopeo", "skopeo")`` skips where the program is missing and prints
the install line; in CI, where ``.ci/run`` has installed everything, the same
absence is a failure.
"""

from __future__ import annotations

import os
import shutil

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        program, package = marker.args
        if shutil.which(program) is None:
            message = f"{program} is missing: apt-get install {package}"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
