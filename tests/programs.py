"""Programs from Debian packages that tests run."""

from __future__ import annotations

import os
import shutil

import pytest

SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"  # daemons; not on the path of every user


def require(program: str, package: str, path: str = SYSTEM) -> str:
    """The path of a program; where it is missing the test is skipped, or fails in CI."""
    found = shutil.which(program) or shutil.which(program, path=path)
    if found is None:
        message = f"{program} is missing: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found
