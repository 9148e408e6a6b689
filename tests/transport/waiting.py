"""Waiting for what other threads do."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 10.0


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Returns as soon as it holds; fails after ten seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)
