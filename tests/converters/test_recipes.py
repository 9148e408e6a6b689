"""Recipes: complete, typed, and explained when wrong."""

from __future__ import annotations

import pytest

from converters import recipes
from converters.passes.base import Context, build, registry
from device_profiles.loader import load_profile, profiles
from edge_sdk.bundle.record import Recipe, Step
from edge_sdk.errors import RecipeError


@pytest.mark.parametrize("profile", profiles().values(), ids=lambda p: p.name)
def test_every_recipe_of_every_profile_can_be_built(profile):
    prepared = recipes.prepare(profile)
    for rules in profile.quantization.values():
        for variants in recipes.families(profile, rules, prepared).values():
            for recipe in variants:
                assert len(build(recipe, Context())) == len(recipe.steps)


def test_standard_ops_only_profile_gets_no_contrib_fusions():
    steps = {step.op for step in recipes.prepare(load_profile("jetson-orin-nano"))}
    assert "fuse-gelu" not in steps


def test_every_registered_pass_is_importable_and_named_as_registered():
    for name, entry in registry().items():
        assert entry.load().name == name


def test_unknown_pass_lists_the_known_ones():
    with pytest.raises(RecipeError, match=r"nonsense[\s\S]*static-qdq"):
        build(Recipe(name="r", steps=(Step(op="nonsense"),)), Context())


def test_unknown_option_lists_the_known_ones():
    with pytest.raises(RecipeError, match=r"alpha"):
        build(Recipe(name="r", steps=(Step(op="smooth-quant", options={"beta": 1}),)), Context())


def test_recipe_file_may_name_a_family_only(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text('name = "int8-stored"\n')
    profile = load_profile("x86-64")
    recipe = recipes.completed(
        recipes.load_recipe(file), profile, profile.quantization["vision"], ()
    )
    assert recipe.forced
    assert [step.op for step in recipe.steps] == ["quantize-embedding", "store-small"]


def test_recipe_file_with_a_wrong_key_names_file_and_key(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text('nam = "int8-stored"\n')
    with pytest.raises(RecipeError, match=r"r\.toml[\s\S]*nam"):
        recipes.load_recipe(file)
