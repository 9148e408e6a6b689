"""Recipes: complete, typed, and explained when wrong."""

from __future__ import annotations

from itertools import product

import pytest

from converters import recipes
from converters.passes.base import Context, build, registry
from converters.target import targets
from device_profiles.loader import load_profile, profiles
from edge_sdk.bundle.record import Recipe, Step
from edge_sdk.errors import RecipeError


@pytest.mark.parametrize("profile", profiles().values(), ids=lambda p: p.name)
def test_every_recipe_of_every_profile_can_be_built(profile):
    for target, rules in product(targets(profile), profile.quantization.values()):
        prepared = recipes.prepare(profile, target)
        for variants in recipes.families(profile, rules, target, prepared).values():
            for recipe in variants:
                assert len(build(recipe, Context())) == len(recipe.steps)


@pytest.mark.parametrize("profile", profiles().values(), ids=lambda p: p.name)
def test_every_candidate_has_a_name_of_its_own_that_says_its_engine(profile):
    for rules in profile.quantization.values():
        found = [
            recipe
            for target in targets(profile)
            for variants in recipes.families(profile, rules, target, ()).values()
            for recipe in variants
        ]
        assert len({recipe.name for recipe in found}) == len(found)
        assert {r.name.endswith("@litert") for r in found if r.engine == "litert"} <= {True}
        assert all(recipes.family_of(recipe) in rules.recipes for recipe in found)


def test_standard_ops_only_profile_gets_no_contrib_fusions():
    jetson, x86 = load_profile("jetson-orin-nano"), load_profile("x86-64")
    onnx, litert = targets(x86)
    fused = {"fuse-gelu", "residual-sum"}
    assert fused <= {step.op for step in recipes.prepare(x86, onnx)}
    assert not fused & {step.op for step in recipes.prepare(x86, litert)}
    assert not fused & {step.op for step in recipes.prepare(jetson, *targets(jetson))}


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
    recipe = completed(recipes.load_recipe(file))
    assert recipe.forced
    assert (recipe.name, recipe.engine) == ("int8-stored", "onnx")
    assert [step.op for step in recipe.steps[-2:]] == ["quantize-embedding", "store-small"]


def completed(recipe, profile="x86-64"):
    found = load_profile(profile)
    return recipes.completed(recipe, found, found.quantization["vision"], targets(found))


@pytest.mark.parametrize("text", ['name = "fp32"\nengine = "litert"', 'name = "fp32@litert"'])
def test_recipe_file_may_name_the_engine(tmp_path, text):
    (tmp_path / "r.toml").write_text(text)
    recipe = completed(recipes.load_recipe(tmp_path / "r.toml"))
    assert (recipe.name, recipe.engine, recipe.forced) == ("fp32@litert", "litert", True)


def test_recipe_file_without_an_engine_takes_the_profiles_own(tmp_path):
    (tmp_path / "r.toml").write_text('name = "fp32"')
    recipe = recipes.load_recipe(tmp_path / "r.toml")
    assert completed(recipe).engine == "onnx"
    assert completed(recipe, "armv7-512mb").engine == "litert"


def test_recipe_for_an_engine_that_the_profile_lacks_names_those_there_are(tmp_path):
    (tmp_path / "r.toml").write_text('name = "fp32@onnx"')
    with pytest.raises(RecipeError, match=r"no engine 'onnx'[\s\S]*litert"):
        completed(recipes.load_recipe(tmp_path / "r.toml"), "armv7-512mb")


def test_family_without_a_form_for_the_engine_lists_those_that_have_one(tmp_path):
    (tmp_path / "r.toml").write_text('name = "int8-block@litert"')
    with pytest.raises(RecipeError, match=r"'int8-block'[\s\S]*int8-dynamic"):
        completed(recipes.load_recipe(tmp_path / "r.toml"))


def test_recipe_file_with_a_wrong_key_names_file_and_key(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text('nam = "int8-stored"\n')
    with pytest.raises(RecipeError, match=r"r\.toml[\s\S]*nam"):
        recipes.load_recipe(file)
