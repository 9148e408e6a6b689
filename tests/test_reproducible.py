"""Converting the same thing twice, in two processes, gives the same bytes (ADR 0003)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_sdk.bundle.reader import open_bundle
from tests.cli import models

# Its first provider is on no machine that runs this test, so that the rules decide.
ELSEWHERE = "jetson-orin-nano"


def convert(source: Path, out: Path, *options: object, seed: str) -> None:
    """One conversion in a process of its own, with its own hash seed."""
    command = [sys.executable, "-m", "edge_sdk.cli.main", "convert", source, "-o", out, *options]
    env = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr


def blobs(path: Path) -> dict[str, bytes]:
    """Every blob but the image index, which carries what the clock measured."""
    index = open_bundle(path).descriptor.digest.removeprefix("sha256:")
    files = (path / "blobs" / "sha256").iterdir()
    return {file.name: file.read_bytes() for file in files if file.name != index}


def assert_twice_the_same(source: Path, *options: object) -> None:
    folder = source.parent
    for seed in ("1", "2"):
        convert(source, folder / f"bundle-{seed}", *options, seed=seed)
    one, two = (open_bundle(folder / f"bundle-{seed}") for seed in ("1", "2"))
    assert one.descriptor.digest != two.descriptor.digest  # the clock was read twice
    assert [v.record for v in one.variants] == [v.record for v in two.variants]
    assert [v.digest for v in one.variants] == [v.digest for v in two.variants]
    assert blobs(folder / "bundle-1") == blobs(folder / "bundle-2")


FORCED = {
    "int8-static-entropy": """
        name = "mine"
        [[steps]]
        op = "cleanup"
        [[steps]]
        op = "fuse-batch-norm"
        [[steps]]
        op = "static-qdq"
        options = {method = "entropy"}
    """,
    "int8-smooth": 'name = "int8-smooth"',
    "int8-stored": 'name = "int8-stored"',
}


@pytest.mark.parametrize("recipe", FORCED)
def test_forced_recipe_gives_the_same_bytes(recipe, tmp_path):
    make = models.classifier if "static" in recipe else models.encoder
    source = make(tmp_path)
    (tmp_path / "recipe.toml").write_text(FORCED[recipe])
    data = "data.npz" if "static" in recipe else "sentences.jsonl"
    options = ("-p", "x86-64", "--recipe", tmp_path / "recipe.toml", "--data", tmp_path / data)
    assert_twice_the_same(source, *options)


@pytest.mark.parametrize("make", [models.classifier, models.two_inputs])
def test_search_by_rules_gives_the_same_bytes(make, tmp_path):
    assert_twice_the_same(make(tmp_path), "-p", ELSEWHERE)
