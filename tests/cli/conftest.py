"""``edge-sdk`` as a process of its own, and one conversion of each kind of model for all tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_profiles.loader import profile_path
from tests.cli import models

Done = subprocess.CompletedProcess[str]
COMMAND = (sys.executable, "-m", "edge_sdk.cli.main")


def edge_sdk(*arguments: object) -> Done:
    """Runs ``edge-sdk …`` and returns what it said."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=900
    )


def answer(*arguments: object) -> Any:
    """The one JSON object that a command prints with ``--json``, and that nothing else is there."""
    done = edge_sdk(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    found = json.loads(done.stdout)
    assert found["schema"].startswith("org.edge-sdk.")
    return found


class Converted:
    """A source model, its bundle, and the report that ``convert --json`` printed."""

    def __init__(self, source: Path, bundle: Path, report: Any) -> None:
        self.source = source
        self.bundle = bundle
        self.report = report
        self.profile: str = report["variants"][0]["report"]["profile"]

    @property
    def rows(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Every candidate of every variant, with the variant's report."""
        reports = [variant["report"] for variant in self.report["variants"]]
        return [(row, report) for report in reports for row in report["candidates"]]


def convert(source: Path, *options: object) -> Converted:
    """Converts into a bundle beside the source."""
    bundle = source.parent / "bundle"
    return Converted(source, bundle, answer("convert", source, "-o", bundle, *options))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A new folder for a model and its bundle."""
    return lambda name: tmp_path_factory.mktemp(name)


@pytest.fixture(scope="session")
def lean(home) -> Path:
    """This machine's kind with few recipes to try: candidates cost seconds of timing."""
    text = profile_path("x86-64").read_text().replace('name = "x86-64"', 'name = "lean"', 1)
    few = 'recipes = ["int8-static", "int8-stored", "fp32"]'
    path = home("profile") / "lean.toml"
    path.write_text(re.sub(r"recipes = \[.*\]", few, text))
    return path


@pytest.fixture(scope="session")
def classifier(home) -> Converted:
    source = models.classifier(home("classifier"))
    data = source.parent / "data.npz"
    return convert(source, "-p", "x86-64", "-p", "board-512mb", "--data", data)


@pytest.fixture(scope="session")
def encoder(home) -> Converted:
    source = models.encoder(home("encoder"))
    return convert(source, "-p", "x86-64", "--data", source.parent / "sentences.jsonl")


@pytest.fixture(scope="session")
def recurrent(home, lean) -> Converted:
    source = models.recurrent(home("recurrent"))
    return convert(source, "-p", lean, "--data", source.parent / "data.npz")


@pytest.fixture(scope="session")
def branching(home, lean) -> Converted:
    return convert(models.branching(home("branching")), "-p", lean, "--fix", "mode=1")


@pytest.fixture(scope="session")
def quantized(home, lean) -> Converted:
    return convert(models.quantized(home("quantized")), "-p", lean)


@pytest.fixture(scope="session")
def two_inputs(home, lean) -> Converted:
    return convert(models.two_inputs(home("two-inputs")), "-p", lean)
