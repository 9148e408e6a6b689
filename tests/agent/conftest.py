"""A world for each test; bundles are made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.bundle.reader import Bundle
from tests.agent import releases
from tests.agent.world import Cloud, Device, Shelf
from tests.bundle.conftest import tmp_path

__all__ = ["tmp_path"]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Versions of one model."""
    folder = tmp_path_factory.mktemp("releases")
    return {
        "1": releases.make(folder / "1", "1.0.0"),
        "2": releases.make(folder / "2", "2.0.0"),
        "3": releases.make(folder / "3", "3.0.0"),
        "wrong": releases.make(folder / "wrong", "4.0.0", wrong=True),
        "fragile": releases.make(folder / "fragile", "5.0.0", rows=1000),
        "again": releases.make(folder / "again", "1.0.0", shift=9),
        "other": releases.make(folder / "other", "1.0.0", name="other"),
        "arm": releases.make(folder / "arm", "6.0.0", profiles=("arm64",)),
        "both": releases.make(folder / "both", "7.0.0", profiles=("x86-64", "arm64")),
    }


@pytest.fixture
def shelf(bundles: dict[str, Bundle]) -> Shelf:
    made = Shelf()
    for bundle in bundles.values():
        made.put(bundle)
    return made


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture
def device(cloud: Cloud, shelf: Shelf, tmp_path: Path) -> Iterator[Callable[..., Device]]:
    """Makes devices, which are closed after the test."""
    made: list[Device] = []

    def make(thing: str = "gate-7", **fields: Any) -> Device:
        made.append(Device(cloud, shelf, tmp_path / thing, thing, **fields))
        return made[-1]

    yield make
    for one in made:
        one.close()
