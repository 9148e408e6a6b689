from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import edge_sdk
from edge_sdk import Model
from tests.generation import tiny

Load = Callable[..., Model]


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture
def load(tiny_bundle: Path) -> Load:
    """Loads the tiny decoder; one thread, weights as they are."""

    def load(**settings) -> Model:
        return edge_sdk.load(
            tiny_bundle, "here", **{"threads": 1, "verify": False, "prepare": False, **settings}
        )

    return load
