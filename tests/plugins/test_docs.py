"""docs/plug-ins.md shows the example plug-ins as they are."""

from __future__ import annotations

import re

import pytest

from edge_sdk.toml_files import loads
from tests.plugins import EXAMPLES

ROOT = EXAMPLES.parents[1]
PAGE = (ROOT / "docs/plug-ins.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|toml)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
MODULES = sorted(EXAMPLES.rglob("*.py"))
PROJECTS = sorted(EXAMPLES.glob("*/pyproject.toml"))


def test_every_group_has_an_example():
    def groups(*projects):
        parsed = (loads(path.read_text(encoding="utf-8")) for path in projects)
        return {group for project in parsed for group in project["project"]["entry-points"]}

    assert groups(*PROJECTS) == groups(ROOT / "pyproject.toml")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_the_page_shows_every_module(module):
    assert ("python", module.read_text(encoding="utf-8")) in BLOCKS


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.parent.name)
def test_the_page_shows_every_entry_point(project):
    points = loads(project.read_text(encoding="utf-8"))["project"]["entry-points"]
    shown = [loads(block).get("project") for kind, block in BLOCKS if kind == "toml"]
    assert {"entry-points": points} in shown


def test_every_block_of_toml_is_part_of_an_example():
    files = [path.read_text(encoding="utf-8") for path in EXAMPLES.rglob("*.toml")]
    for kind, block in BLOCKS:
        assert kind == "python" or any(block.rstrip() in text for text in files), block
