"""A conversion that is killed leaves a complete bundle or none, and the next one cleans up."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from edge_sdk.bundle.reader import open_bundle
from tests.cli import models
from tests.cli.conftest import COMMAND, edge_sdk

STORED = 'name = "int8-stored"'


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> tuple[object, ...]:
    folder = tmp_path_factory.mktemp("killed")
    (folder / "recipe.toml").write_text(STORED)
    source = models.two_inputs(folder)
    return ("convert", source, "-p", "x86-64", "--recipe", folder / "recipe.toml")


def started(words: tuple[object, ...], out: Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*COMMAND, *map(str, words), "-o", str(out)], stderr=pipe, text=True)


def killed(words: tuple[object, ...], out: Path, moment: str) -> bool:
    """Kills a conversion soon after it said that it does something; whether it was in time."""
    process = started((*words, "--force"), out)
    assert process.stderr is not None
    assert any(moment in line for line in process.stderr), "it never came to this"
    time.sleep(random.Random(moment).uniform(0, 0.02))
    process.kill()
    process.stderr.close()
    return process.wait() == -signal.SIGKILL


def check(folder: Path) -> None:
    """The target is complete or absent."""
    if (folder / "bundle").exists():
        open_bundle(folder / "bundle").verify()


# What it says just before it packs, writes and renames is where a kill could hurt.
@pytest.mark.parametrize("moment", ["reading", "generating", "measuring", "packing"])
def test_killed_conversion_leaves_no_bundle_or_a_whole_one(words, tmp_path, moment):
    assert any(killed(words, tmp_path / "bundle", moment) for _ in range(5)), "always too late"
    check(tmp_path)
    done = edge_sdk(*words, "-o", tmp_path / "bundle", "--force")
    assert done.returncode == 0, done.stderr
    check(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"], "remains of the first"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_conversion_leaves_nothing(words, tmp_path, number, code):
    process = started(words, tmp_path / "bundle")
    assert process.stderr is not None
    assert any("measuring" in line for line in process.stderr)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
