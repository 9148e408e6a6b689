"""The example plug-ins, installed by pip into a folder of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples/plugins"

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all examples are installed in, beside each other."""
    folder = tmp_path_factory.mktemp("plugins")
    # A build leaves files beside the sources.
    sources = shutil.copytree(EXAMPLES, folder / "sources")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation"]
    projects = [path.parent for path in sources.glob("*/pyproject.toml")]
    target = folder / "site"
    done = subprocess.run(
        [*pip, *offline, "--target", target, *projects], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def command(site: Path, tmp_path: Path) -> Command:
    """Runs ``python …`` in an empty folder, with the plug-ins installed."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def edge_sdk(command: Command) -> Command:
    """Runs ``edge-sdk …``, which must succeed, with the plug-ins installed."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        done = command("-m", "edge_sdk.cli.main", *arguments)
        assert done.returncode == 0, done.stderr
        return done

    return run
