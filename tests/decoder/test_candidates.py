"""Candidates, their names and recipes, and mixtures of them."""

from __future__ import annotations

from typing import get_args

import pytest

from converters.decoder import sensitivity
from converters.decoder.candidates import FAMILIES, Spec, spec_from, specs_for, specs_of
from converters.decoder.names import nodes
from converters.decoder.sensitivity import Sensitivity, groups, mixtures, precise_format
from converters.decoder.weights import WeightFormat, WeightPlan
from converters.quantize import Blocks
from device_profiles.loader import load_profile
from device_profiles.schema import RecipeFamily
from edge_sdk.bundle.record import Recipe, Step
from edge_sdk.errors import RecipeError
from tests.decoder.random_weights import RandomWeights, llama

pytestmark = pytest.mark.converts

MODEL = llama(hidden=256, intermediate=512, tied=False)
WEIGHTS = RandomWeights(MODEL)


class StoredWeights(RandomWeights):
    """A file whose layers are stored in 4-bit blocks and whose head in 8-bit ones."""

    def blocks(self, name: str, wanted: WeightFormat) -> Blocks | None:
        stored = WeightFormat(8, 32) if name in ("head", "embed") else WeightFormat(4, 32)
        return Blocks(None, None, None) if wanted == stored else None  # type: ignore[arg-type]


def names(family: str) -> list[str]:
    return [spec.name for spec in specs_of(family, MODEL, WEIGHTS)]


def test_families_are_the_profiles_own() -> None:
    assert set(FAMILIES) <= set(get_args(RecipeFamily))


def test_four_bits_come_in_several_blocks_and_roundings() -> None:
    assert names("int4-block") == [
        "int4-b32", "int4-b32-clip", "int4-b32-gptq",
        "int4-b128", "int4-b128-clip", "int4-b128-gptq",
        "int4-b256", "int4-b256-clip", "int4-b256-gptq", "int4-b256-asym-gptq",
    ]  # fmt: skip


def test_blocks_are_no_longer_than_the_input() -> None:
    narrow = llama(hidden=64)
    found = list(specs_of("int4-block", narrow, RandomWeights(narrow)))
    assert {spec.plan.default.block_size for spec in found} == {32}


def test_arm_with_dot_product_gets_blocks_that_divide_the_input() -> None:
    odd = llama(hidden=320, intermediate=512)
    weights = RandomWeights(odd)

    def sizes(name: str, bits: int) -> set[int]:
        formats = [s.plan.default for s in specs_for(load_profile(name), odd, weights)]
        return {wanted.block_size for wanted in formats if wanted.bits == bits}

    assert sizes("arm64", 4) == sizes("arm64", 8) == {32}
    assert sizes("board-512mb", 4) == sizes("x86-64", 4) == {32, 128, 256}
    assert sizes("x86-64", 8) == {32, 256}


def test_families_of_other_models_have_no_candidates() -> None:
    assert names("int8-smooth") == []


@pytest.mark.parametrize("profile", ["x86-64", "arm64", "board-512mb", "jetson-orin-nano"])
def test_recipe_says_all_of_a_candidate(profile: str) -> None:
    specs = specs_for(load_profile(profile), MODEL, WEIGHTS)
    mixed = specs[0].with_nodes("mixed", {"head": WeightFormat(8), "layers.1.o": WeightFormat(16)})
    for spec in (*specs, mixed):
        assert spec_from(spec.recipe("onnx"), MODEL, WEIGHTS) == spec


@pytest.mark.parametrize("name", ["int4-b64-asym-gptq", "int4-b16", "int8-b128", "fp16", "fp32"])
def test_name_alone_makes_a_recipe(name: str) -> None:
    spec = spec_from(Recipe(name=name, forced=True), MODEL, WEIGHTS)
    assert (spec.name, spec.forced) == (name, True)
    assert spec.recipe("onnx").forced


def test_family_alone_means_its_first_candidate() -> None:
    assert spec_from(Recipe(name="int4-block"), MODEL, WEIGHTS).name == "int4-b32"


@pytest.mark.parametrize(
    ("recipe", "complaint"),
    [
        (Recipe(name="int3-b32"), "unknown recipe 'int3-b32'"),
        (Recipe(name="int4-b48"), "48"),
        (Recipe(name="int8-b32-gptq"), "gptq is for 4 bits"),
        (Recipe(name="int4-b32-stored"), "unknown recipe 'int4-b32-stored'"),
        (Recipe(name="x", steps=(Step(op="static-qdq"),)), "no step 'static-qdq'"),
        (Recipe(name="x", steps=(Step(op="block-weights", options={"bit": 4}),)), "bit"),
        (
            Recipe(name="x", steps=(Step(op="block-weights", options={"nodes": ["layers.7.o"]}),)),
            "no node 'layers.7.o'",
        ),
    ],
)
def test_recipes_that_mean_nothing_are_refused(recipe: Recipe, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        spec_from(recipe, MODEL, WEIGHTS)


def test_blocks_of_the_source_are_a_candidate_of_their_own() -> None:
    found = {spec.name: spec for spec in specs_of("int4-block", MODEL, StoredWeights(MODEL))}
    stored = found["int4-b32-stored"]
    assert stored.method == "stored"
    assert stored.plan.of("layers.0.qkv") == WeightFormat(4, 32)
    assert stored.plan.of("head") == stored.plan.of("embed") == WeightFormat(8, 32)
    assert not [name for name in found if name.startswith("int4-b32-") and name != stored.name]
    assert spec_from(Recipe(name="int4-b32-stored"), MODEL, StoredWeights(MODEL)) == stored


def test_every_node_is_in_one_group() -> None:
    for layers in (2, 40):
        model = llama(layers=layers)
        members = [node for group in groups(model) for node in group]
        assert sorted(members) == sorted(nodes(model))
        assert len(groups(model)) <= sensitivity.MANY_GROUPS + 1


def ranked(*increases: float) -> list[Sensitivity]:
    return [Sensitivity((f"node{i}",), value) for i, value in enumerate(increases)]


def test_worst_groups_go_first_and_ever_more_of_them() -> None:
    spec = Spec("int4-b32", WeightPlan(WeightFormat(4, 32)))
    found = mixtures(spec, ranked(8, 2, 1, 1, 1, 1, 1, 1), WeightFormat(8), drop=0.2, max_drop=0.05)
    counts = [len(mixed.plan.nodes) for mixed in found]
    assert counts == sorted(set(counts))
    assert counts[-1] <= 5
    assert "node0" in found[0].plan.nodes
    assert all(mixed.plan.of("node7") == WeightFormat(4, 32) for mixed in found)


def test_one_group_is_enough_where_it_does_all_the_harm() -> None:
    spec = Spec("int4-b32", WeightPlan(WeightFormat(4, 32)))
    harm = ranked(10, *[0.01] * 9)
    assert len(mixtures(spec, harm, WeightFormat(8), drop=0.2, max_drop=0.05)[0].plan.nodes) == 1


def test_eight_bits_only_where_the_device_packs_them() -> None:
    coarse, fine = WeightFormat(4, 128), WeightFormat(4, 32)
    gateway, board = (load_profile(n).quantization["decoder"] for n in ("x86-64", "board-512mb"))
    assert precise_format(gateway, coarse) == WeightFormat(8)
    assert precise_format(board, coarse) == fine
    assert precise_format(board, fine) == WeightFormat(16)
