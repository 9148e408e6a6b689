"""The toolchain that TensorRT's parser and builder come from, in the user's cache."""

from __future__ import annotations

import platform

import pytest

from converters import toolchains
from converters.tensorrt.toolchain import TENSORRT_RTX
from edge_sdk.errors import ToolchainError


@pytest.fixture(scope="session")
def parser() -> None:
    """TensorRT for RTX; built on first use, which takes a network and 270 MB."""
    if platform.machine() != "x86_64":
        pytest.skip("TensorRT for RTX is for x86-64")
    try:
        toolchains.find(TENSORRT_RTX.name).install(lambda step: None)
    except ToolchainError as error:
        pytest.skip(f"tensorrt-rtx cannot be installed: {error}")


@pytest.fixture
def no_parser(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has installed no toolchain."""
    monkeypatch.setenv("EDGE_SDK_CACHE", str(tmp_path_factory.mktemp("cache")))
