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


def converting(source: Path, out: Path, *options: object, seed: str) -> subprocess.Popen[str]:
    """One conversion in a process of its own, with its own hash seed."""
    command = [sys.executable, "-m", "edge_sdk.cli.main", "convert", source, "-o", out, *options]
    env = {**os.environ, "PYTHONHASHSEED": seed}
    pipe = subprocess.PIPE
    return subprocess.Popen([*map(str, command)], stdout=pipe, stderr=pipe, text=True, env=env)


def blobs(path: Path) -> dict[str, bytes]:
    """Every blob but the image index, which carries what the clock measured."""
    index = open_bundle(path).descriptor.digest.removeprefix("sha256:")
    files = (path / "blobs" / "sha256").iterdir()
    return {file.name: file.read_bytes() for file in files if file.name != index}


def assert_twice_the_same(source: Path, *options: object) -> None:
    folder = source.parent
    at_work = [converting(source, folder / f"bundle-{s}", *options, seed=s) for s in ("1", "2")]
    for process in at_work:
        said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    one, two = (open_bundle(folder / f"bundle-{seed}") for seed in ("1", "2"))
    assert one.descriptor.digest != two.descriptor.digest  # the clock was read twice
    assert [v.record for v in one.variants] == [v.record for v in two.variants]
    assert [v.digest for v in one.variants] == [v.digest for v in two.variants]
    assert blobs(folder / "bundle-1") == blobs(folder / "bundle-2")


STATIC = """
    name = "mine"
    [[steps]]
    op = "cleanup"
    [[steps]]
    op = "static-qdq"
    options = {method = "entropy"}
"""


@pytest.mark.parametrize(
    ("make", "data", "recipe"),
    [
        (models.classifier, "data.npz", STATIC),
        (models.encoder, "sentences.jsonl", 'name = "int8-smooth"'),
    ],
)
def test_forced_recipe_gives_the_same_bytes(make, data, recipe, tmp_path):
    source = make(tmp_path)
    (tmp_path / "recipe.toml").write_text(recipe)
    options = ("-p", "x86-64", "--recipe", tmp_path / "recipe.toml", "--data", tmp_path / data)
    assert_twice_the_same(source, *options)


def test_search_by_rules_gives_the_same_bytes(tmp_path):
    source = models.classifier(tmp_path)
    assert_twice_the_same(source, "-p", ELSEWHERE, "--data", tmp_path / "data.npz")
