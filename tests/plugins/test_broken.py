"""A plug-in that does not load is named, with what it was to bring."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters import convert
from converters.metrics import find_metric
from converters.passes.base import Context, GraphPass, build, registry
from converters.source import open_source
from device_profiles.loader import profiles
from device_profiles.machine import installed_engines
from edge_sdk.bundle.record import Recipe, Step
from edge_sdk.errors import (
    ConversionError,
    MissingEngineError,
    ProfileError,
    RecipeError,
    SourceError,
)
from edge_sdk.runtime.engine import find_engine

USES = {
    "engines": (MissingEngineError, lambda: find_engine("bad")),
    "metrics": (RecipeError, lambda: find_metric("bad")),
    "passes": (RecipeError, lambda: build(Recipe(name="r", steps=(Step(op="bad"),)), Context())),
    "profiles": (ProfileError, profiles),
    "sources": (SourceError, lambda: open_source(Path(__file__))),
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Registers one entry point, ``bad``, as an installed package would."""

    def register(group, target):
        info = tmp_path / "bad-1.0.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1.0.0\n")
        (info / "entry_points.txt").write_text(f"[edge_sdk.{group}]\nbad = {target}\n")
        monkeypatch.syspath_prepend(tmp_path)
        registry.cache_clear()

    yield register
    registry.cache_clear()


@pytest.mark.parametrize("target", ["no_such_module:X", "json:no_such_name"])
@pytest.mark.parametrize("group", USES)
def test_a_broken_plug_in_is_named(install, group, target):
    install(group, target)
    error, use = USES[group]
    with pytest.raises(error, match=rf"bad = {target} of edge_sdk\.{group}"):
        use()


def test_a_broken_engine_does_not_stop_the_others(install):
    install("engines", "no_such_module:X")
    assert find_engine("onnx").version()
    assert [engine.name for engine in installed_engines()].count("bad") == 0


class Raises(GraphPass):
    """Raises, and does not say why."""

    name = "bad"
    is_rewrite = False

    def rewrite(self, graph, model):
        raise AssertionError


def test_a_pass_that_raises_is_named(install, squares, tmp_path):
    install("passes", f"{__name__}:Raises")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('name = "mine"\nsteps = [{op = "bad"}]')
    with pytest.raises(ConversionError, match="pass 'bad': AssertionError"):
        convert(squares, ["x86-64"], tmp_path / "bundle", recipe=recipe)
    assert not (tmp_path / "bundle").exists()
