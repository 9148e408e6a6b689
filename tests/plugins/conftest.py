"""The example plug-ins, installed by pip into a folder of their own, and a model to use them on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.passes.models import build, normal
from tests.plugins import EXAMPLES

Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]
WEIGHT = normal(16, 32)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all examples are installed in, beside each other."""
    folder = tmp_path_factory.mktemp("plugins")
    sources = shutil.copytree(EXAMPLES, folder / "sources")  # a build leaves files in them
    projects = [path.parent for path in sources.glob("*/pyproject.toml")]
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--target", target]
    done = subprocess.run([*pip, *offline, *projects], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="session")
def python(site: Path) -> Command:
    """Runs ``python …`` with the plug-ins installed."""

    def run(*arguments: str | Path) -> Done:
        return subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture(scope="session")
def edge_sdk(python: Command) -> Command:
    """Runs ``edge-sdk …`` with the plug-ins installed."""
    return lambda *arguments: python("-m", "edge_sdk.cli.main", *arguments)


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``y = x² w`` with ``x`` [batch, 16] and a weight large enough for a blob of its own."""
    model = build(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        squares (float[batch, 16] x) => (float[batch, 32] y) <float two = {2.0}> {
            square = Pow (x, two)
            y = MatMul (square, w)
        }
        """,
        w=WEIGHT,
    )
    path = tmp_path_factory.mktemp("models") / "squares.onnx"
    onnx.save(ir.to_proto(model), path)
    return path


def expected(x: np.ndarray) -> np.ndarray:
    """What ``squares`` computes."""
    return x**2 @ WEIGHT
