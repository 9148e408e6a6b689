"""A real toolchain that takes seconds: one pure wheel from a folder, no index, no network."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import msgspec
import pytest

from converters.toolchains import Environment, Pythons, Toolchain

SCRIPT = Path(__file__).with_name("tools.py")
PYTHONS = Pythons((3, 11), (3, 15))


def write_wheel(folder: Path, name: str, version: str, source: str) -> None:
    """A wheel of one module."""
    info = f"{name}-{version}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", source)
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n")


TINY = Toolchain(
    name="tiny",
    title="a toolchain of one wheel",
    python=PYTHONS,
    requirements=(("tinytool==1.0",),),
    script=SCRIPT,
    size_bytes=30_000_000,
)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the one wheel."""
    folder = tmp_path_factory.mktemp("wheels")
    write_wheel(folder, "tinytool", "1.0", "ANSWER = 42\n")
    return folder


@pytest.fixture
def offline(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and pip without an index; gives the cache's folder."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("EDGE_SDK_CACHE", str(cache))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return cache


@pytest.fixture(scope="session")
def built(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the one toolchain in it."""
    cache = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_SDK_CACHE", str(cache))
        Environment(TINY).install(lambda message: None, wheels)
    return cache


@pytest.fixture
def installed(built: Path, offline: Path) -> Environment:
    """The tiny toolchain, there already: a copy, because building one takes seconds."""
    shutil.copytree(built, offline, symlinks=True)
    return Environment(TINY)


def changed(**fields: object) -> Toolchain:
    """The tiny toolchain with other fields."""
    return msgspec.structs.replace(TINY, **fields)
