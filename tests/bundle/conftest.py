"""Puts these tests' files into memory: every blob is fsynced, and a busy disk makes that slow."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path(tmp_path_factory):
    """As pytest's own, in memory where there is a folder for that."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path_factory.mktemp("disk")
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)
