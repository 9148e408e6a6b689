"""A decoder that would talk for minutes, for tests that interrupt it."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import msgspec

from tests.generation import tiny

CONTEXT = 32_768


def endless(path: Path) -> Path:
    """The tiny decoder with a context that takes minutes to fill."""
    with patch.object(tiny, "CONTEXT", CONTEXT):
        return tiny.bundle(
            path, generation=msgspec.structs.replace(tiny.GENERATION, context=CONTEXT, eos=())
        )
