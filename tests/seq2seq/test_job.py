"""Encoder-decoder models converted: from an exported folder to a device that writes."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

import edge_sdk
from converters import convert
from converters.report import Report
from device_profiles.loader import profile_path
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.errors import ConversionError, DataError, InputError
from tests.seq2seq.fixtures.archive import unpack
from tests.seq2seq.inputs import FOLDER, NEW_TOKENS, TEXTS, features, written

pytestmark = pytest.mark.converts
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def profile(folder: Path, name: str, encoder: list[str], decoder: list[str]) -> Path:
    """A profile that tries few recipes, so that a search takes seconds."""
    text = profile_path(name).read_text()
    for kind, recipes in (("encoder", encoder), ("decoder", decoder)):
        pattern = rf"(\[quantization\.{kind}\]\nrecipes = )\[[^\]]*\]"
        text, count = re.subn(pattern, rf"\g<1>{json.dumps(recipes)}", text)
        assert count == 1
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def pairs(path: Path) -> Path:
    """Number words with their digits."""
    rng = random.Random(1)
    rows = [[rng.randrange(10) for _ in range(rng.randint(1, 6))] for _ in range(16)]
    lines = [
        {"text": " ".join(WORDS[n] for n in row), "target": " ".join(map(str, row))} for row in rows
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


@pytest.fixture(scope="module")
def t5(tmp_path_factory) -> Path:
    return unpack(FOLDER / "t5.tar.xz", tmp_path_factory.mktemp("source") / "words")


@pytest.fixture(scope="module")
def converted(t5, tmp_path_factory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("converted")
    # Of a board that is not here, so that the profile's rules decide, and not a clock.
    board = profile(folder, "arm64", ["int8-dynamic"], ["int4-block", "int8-block"])
    data = pairs(folder / "pairs.jsonl")
    report = convert(t5, [str(board)], folder / "words.bundle", data=data, max_drop=0.05)
    return folder / "words.bundle", report


def test_chosen_variant_holds_the_limit_and_writes_what_the_source_wrote(converted):
    bundle, report = converted
    (row,) = (
        c
        for c in report.variants[0].report.candidates
        if c.name == report.variants[0].report.chosen
    )
    assert row.agreement.drop <= 0.05
    with edge_sdk.load(bundle, "arm64") as model:
        for text, tokens in zip(TEXTS, written("t5"), strict=True):
            completion = model.generate(text, max_new_tokens=NEW_TOKENS)
            completion.read()
            assert [0, *completion.tokens, 1] == tokens
        assert model.self_test().cases == 2


def test_report_has_pairs_and_the_candidates_of_each_graph(converted):
    rows = {row.name: row for row in converted[1].variants[0].report.candidates}
    assert "source" in rows
    assert {"encoder: int8-dynamic", "decoder: int8-block"} <= set(rows)
    assert rows[converted[1].variants[0].report.chosen].status == "chosen"
    source = rows["source"]
    assert source.agreement.drop == 0
    assert source.agreement.metrics["same text"] == (1, 1)
    assert source.agreement.metrics["rouge-l"] == (1, 1)
    assert source.decoder.perplexity == source.decoder.source_perplexity < 1.1
    assert source.decoder.tokens_per_second > 0


def test_what_is_chosen_is_quantized_in_both_graphs(converted):
    record = open_bundle(converted[0]).variants[0].record
    operators = {cost.op for cost in record.costs}
    assert "source" not in record.recipe.name
    assert all(recipe.steps for recipe in record.decoding.recipes.values())
    assert record.agreement.metrics["same text"] == (1, 1)
    assert {"DynamicQuantizeLinear", "MatMulNBits"} & operators or "MatMulInteger" in operators


def test_record_says_how_each_graph_was_made_and_what_a_token_costs(converted):
    record = open_bundle(converted[0]).variants[0].record
    assert record.kind == "encoder-decoder"
    assert set(record.decoding.recipes) == {"encoder", "decoder"}
    assert record.memory.kv_per_token == 2 * 2 * 32 * 4  # keys and values, layers, width, float32
    assert len(record.wiring) == len(record.states) == 4


def test_same_source_gives_the_same_variant(converted, t5, tmp_path):
    bundle, _ = converted
    board = profile(tmp_path, "arm64", ["int8-dynamic"], ["int4-block", "int8-block"])
    data = pairs(tmp_path / "pairs.jsonl")
    convert(t5, [str(board)], tmp_path / "again", data=data, max_drop=0.05)
    one, other = (open_bundle(path).variants[0].digest for path in (bundle, tmp_path / "again"))
    assert one == other


def test_base_keeps_each_graph_s_recipe(converted, t5, tmp_path):
    bundle, _ = converted
    board = profile(tmp_path, "arm64", ["fp32"], ["fp32"])
    data = pairs(tmp_path / "pairs.jsonl")
    convert(t5, [str(board)], tmp_path / "next", data=data, max_drop=0.05, base=bundle)
    before, after = (open_bundle(path).variants[0].record for path in (bundle, tmp_path / "next"))
    assert after.recipe.name == before.recipe.name
    assert after.graphs == before.graphs


def test_user_s_metric_decides(t5, tmp_path):
    here = profile(tmp_path, "arm64", ["int8-dynamic"], ["fp32"])
    data = pairs(tmp_path / "pairs.jsonl")
    report = convert(t5, [str(here)], tmp_path / "b", data=data, metric="exact-match")
    row = report.variants[0].report.candidates[0]
    assert row.agreement.drop_of == "drop of exact-match"


def test_board_that_runs_no_onnx_is_told_why(t5, tmp_path):
    with pytest.raises(ConversionError, match="none of its engines") as caught:
        convert(t5, ["armv7-512mb"], tmp_path / "b")
    assert "armv7-512mb" in str(caught.value.where)


def test_jetson_gets_standard_operators(t5, tmp_path):
    here = profile(tmp_path, "jetson-orin-nano", ["fp16"], ["fp16"])
    convert(t5, [str(here)], tmp_path / "b", data=pairs(tmp_path / "pairs.jsonl"))
    record = open_bundle(tmp_path / "b").variants[0].record
    assert record.recipe.name == "fp16"
    with edge_sdk.load(tmp_path / "b", "jetson-orin-nano") as model:
        assert model.generate("four four zero").read() == "4 4 0"


def test_whisper_is_converted_from_features(tmp_path):
    source = unpack(FOLDER / "whisper.tar.xz", tmp_path / "heard")
    np.savez(tmp_path / "x.npz", input_features=features()[:, None])
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('name = "fp32"')
    report = convert(source, ["arm64"], tmp_path / "b", data=tmp_path / "x.npz", recipe=recipe)
    assert report.variants[0].report.reason == "forced by the recipe"
    assert report.variants[0].report.candidates[0].agreement.metrics["same text"] == (1, 1)
    with edge_sdk.load(tmp_path / "b", "arm64") as model:
        clip = np.random.default_rng(0).normal(scale=0.1, size=16_000).astype(np.float32)
        assert model.transcribe(clip, language="de").text


def test_sound_with_transcripts_is_data(tmp_path):
    import wave

    source = unpack(FOLDER / "whisper.tar.xz", tmp_path / "heard")
    folder = tmp_path / "sounds"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes((rng.normal(scale=3000, size=8000)).astype("<i2").tobytes())
        (folder / f"{number}.txt").write_text("1 2 3")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('name = "fp32"')
    report = convert(source, ["arm64"], tmp_path / "b", data=folder, recipe=recipe)
    assert "wer" in report.variants[0].report.candidates[0].agreement.metrics


@pytest.mark.parametrize(
    ("options", "where"),
    [({"states": {"a": "b"}}, "--state"), ({"context": 65}, "--context")],
)
def test_options_of_other_models_are_refused(t5, tmp_path, options, where):
    with pytest.raises(InputError) as caught:
        convert(t5, ["arm64"], tmp_path / "b", **options)
    assert caught.value.where == where


def test_line_without_text_is_named(t5, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "one"}\n{"target": "2"}\n')
    with pytest.raises(DataError, match="has no 'text'") as caught:
        convert(t5, ["arm64"], tmp_path / "b", data=data)
    assert "sample 2" in caught.value.where
