"""Profiles load, round-trip, and say exactly what is wrong with a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_profiles.loader import BUILTIN, load_profile, profiles
from device_profiles.parse import parse, to_toml
from device_profiles.schema import EngineChoice
from edge_sdk.errors import ProfileError

REQUIRED = {"x86-64", "arm64", "board-512mb", "armv7-512mb", "jetson-orin-nano"}
VALID = (BUILTIN / "x86-64.toml").read_text()


def test_all_built_in_profiles_are_valid_and_named_as_their_files():
    known = profiles()
    assert set(known) >= REQUIRED
    assert all(known[name].name == name for name in REQUIRED)


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_a_profile_written_as_toml_reads_back_equal(name):
    profile = load_profile(name)
    assert parse(to_toml(profile), "copy") == profile


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_fp32_is_the_last_resort_of_every_kind(name):
    for rules in load_profile(name).quantization.values():
        assert rules.recipes[-1] == "fp32"
        assert set(rules.recipes) <= set(load_profile(name).speedups)


def test_board_without_dot_product_is_not_offered_unpacked_8_bit_blocks():
    for rules in load_profile("board-512mb").quantization.values():
        assert "int8-block" not in rules.recipes


def test_tensorrt_profile_asks_for_what_tensorrt_parses():
    profile = load_profile("jetson-orin-nano")
    assert profile.standard_ops_only
    for rules in profile.quantization.values():
        assert (rules.activation, rules.weight) == ("int8", "int8")
        assert rules.symmetric_activation
        assert rules.float_bias
        assert not {"int8-block", "int4-block", "int8-dynamic"} & set(rules.recipes)


def test_a_recipe_adds_its_own_engine_options():
    engine = load_profile("jetson-orin-nano").engines[0]
    fp16, int8 = (f"TensorrtExecutionProvider.trt_{name}_enable" for name in ("fp16", "int8"))
    assert engine.options_for("fp32") == engine.options
    assert engine.options_for("fp16") == {**engine.options, fp16: "1"}
    assert engine.options_for("int8-static") == {**engine.options, fp16: "1", int8: "1"}
    assert EngineChoice(name="onnx").options_for("fp32") == {}


WRONG = {
    "unknown key": ("total_mib = 8192", "total_mb = 8192", "memory.total_mb", ["total_mib"]),
    "unknown section": ("[storage]", "[storge]", "storge", ["storage", "cpu", "engines"]),
    "wrong type": ("total_mib = 8192", 'total_mib = "8 GB"', "memory.total_mib", ["int"]),
    "out of range": ("cores = 4", "cores = 0", "cpu.cores", [">= 1"]),
    "infinite": ("per_s = 30.0", "per_s = inf", "memory.bandwidth_gb_per_s", ["1000000"]),
    "wrong literal": (
        'architecture = "amd64"',
        'architecture = "x86_64"',
        "platform.architecture",
        ["amd64", "arm64", "arm"],
    ),
    "wrong recipe": (
        '["int4-block", ',
        '["int4-blok", ',
        "quantization.decoder.recipes[0]",
        ["did you mean 'int4-block'", "int8-stored", "fp16"],
    ),
    "wrong kind": (
        "[quantization.vision]",
        "[quantization.visoin]",
        "quantization.visoin",
        ["decoder", "encoder", "vision", "generic"],
    ),
    "missing kind": (
        '[quantization.decoder]\nrecipes = ["int4-block", "int8-block", "fp32"]\nreason = "One '
        'token reads every weight once: memory bandwidth decides, so the fewest bits win."\n',
        "",
        "quantization.decoder",
        ["every kind"],
    ),
    "missing key": ('os = "linux"\n', "", "platform.os", ["missing", "linux"]),
    "wrong activation": (
        "[quantization.encoder]",
        '[quantization.encoder]\nactivation = "int4"',
        "quantization.encoder.activation",
        ["uint8", "int8"],
    ),
    "no recipes": (
        'recipes = ["int4-block", "int8-block", "fp32"]',
        "recipes = []",
        "quantization.decoder.recipes",
        ["fp32"],
    ),
    "repeated recipe": (
        'recipes = ["int4-block", "int8-block", "fp32"]',
        'recipes = ["fp32", "fp32"]',
        "quantization.decoder.recipes",
        ["twice"],
    ),
    "speedup of nothing": ("int8-smooth = 2.5", "int8-smoth = 2.5", "speedups.int8-smoth", []),
    "not a number": ("int8-smooth = 2.5", "int8-smooth = true", "speedups.int8-smooth", ["float"]),
    "unknown engine": (
        'name = "onnx"',
        'name = "onxx"',
        "engines[0].name",
        ["did you mean 'onnx'", "litert"],
    ),
    "provider not in a list": (
        'providers = ["CPUExecutionProvider"]',
        'providers = "CPUExecutionProvider"',
        "engines[0].providers",
        ["array"],
    ),
    "budget over total": (
        "model_budget_mib = 4096",
        "model_budget_mib = 9000",
        "memory.model_budget_mib",
        ["1 to memory.total_mib (8192)"],
    ),
    "threads over cores": ("threads = 4", "threads = 5", "cpu.threads", ["1 to cpu.cores (4)"]),
    "feature of another ISA": ('"avx2"', '"asimddp"', "cpu.isa[0]", ["avx2", "avx512_vnni"]),
    "name with spaces": ('name = "x86-64"', 'name = "my board"', "name", ["a-z0-9"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_field_is_named_with_its_file_and_what_is_allowed(tmp_path, case):
    old, new, key, allowed = WRONG[case]
    assert old in VALID
    file = tmp_path / "mine.toml"
    file.write_text(VALID.replace(old, new))
    with pytest.raises(ProfileError) as caught:
        load_profile(file)
    text = str(caught.value)
    assert str(file) in text
    assert key in text
    for words in allowed:
        assert words in text


def test_every_wrong_field_is_reported_at_once(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(VALID.replace("cores = 4", "cores = 0").replace('os = "linux"', 'os = "dos"'))
    with pytest.raises(ProfileError, match=r"cpu\.cores") as caught:
        load_profile(file)
    assert "platform.os" in str(caught.value)


@pytest.mark.parametrize("text", ["engines = []\n", "[[engines]]\n"])
def test_no_engine_is_an_error(tmp_path, text):
    start, end = VALID.index("[[engines]]"), VALID.index("[quantization.encoder]")
    file = tmp_path / "mine.toml"
    body = VALID[:start] + VALID[end:]
    file.write_text(text + body if text.startswith("engines") else body + text)
    with pytest.raises(ProfileError, match="engines"):
        load_profile(file)


def test_bad_toml_names_the_line(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('name = "a"\ntitle = \n')
    with pytest.raises(ProfileError, match=r"mine\.toml.*line 2"):
        load_profile(file)


def test_unreadable_files_are_profile_errors(tmp_path):
    with pytest.raises(ProfileError, match="No such file"):
        load_profile(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b'title = "caf\xe9"')
    with pytest.raises(ProfileError, match="UTF-8"):
        load_profile(tmp_path / "latin.toml")


def test_an_unknown_name_suggests_a_close_one():
    with pytest.raises(ProfileError, match="did you mean 'x86-64'") as caught:
        load_profile("x86_64")
    assert "board-512mb" in str(caught.value)


def test_32_bit_arm_needs_a_variant(tmp_path):
    text = (BUILTIN / "armv7-512mb.toml").read_text().replace('variant = "v7"\n', "")
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ProfileError, match=r"platform\.variant.*v6, v7, v8"):
        load_profile(file)


def test_a_path_object_and_a_string_load_the_same(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text(VALID)
    assert load_profile(file) == load_profile(str(file)) == load_profile("x86-64")
