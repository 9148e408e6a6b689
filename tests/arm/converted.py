"""Bundles of the examples, made by the command that users type."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.arm.boards import REPOSITORY

EXAMPLES = REPOSITORY / "examples"


def converted(folder: Path, model: str, profiles: Sequence[str], recipe: str = "") -> Path:
    """Converts an example with its calibration data; the recipe is forced where one is given."""
    example = EXAMPLES / model
    [source] = [*example.glob("model"), *example.glob("*.onnx")]
    [data] = example.glob("calibration.*")
    command = [sys.executable, "-m", "edge_sdk.cli.main", "convert", source, "--data", data]
    command += ["-o", folder / "bundle", *(word for name in profiles for word in ("-p", name))]
    if recipe:
        (folder / "recipe.toml").write_text(f'name = "{recipe}"\n')
        command += ["--recipe", folder / "recipe.toml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "bundle"
