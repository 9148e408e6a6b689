"""Each class of model, converted by the command line, answers on a device as its framework does.

fp32 answers are the same; what a search chooses stays within its limit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

import edge_sdk
from converters.source import open_source
from converters.toolchains import find, process
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.errors import InputError
from edge_sdk.runtime.model import Model
from tests.cli.conftest import answer
from tests.cli.conftest import edge_sdk as edge_sdk_command
from tests.hugging_face.conftest import INSIDE, MODELS, Case

pytestmark = [pytest.mark.slow, pytest.mark.converts]

NEW_TOKENS = 12
TEXTS = ("the red fox", "who opened the window ?", "stop")
SCORE = 2e-4  # of probabilities; the frameworks' float kernels differ by rounding


def convert(case: Case, out: Path, *options: object) -> Any:
    return answer("convert", case.folder, "-o", out, "-p", "x86-64", *options)


@pytest.fixture
def exact(tmp_path: Path) -> Path:
    """A recipe that changes nothing."""
    file = tmp_path / "fp32.toml"
    file.write_text('name = "fp32"\n', encoding="utf-8")
    return file


def check_embedding(model: Model, given: Any, expected: Any, tolerance: float) -> None:
    (vector,) = model.embed(given)
    np.testing.assert_allclose(vector, expected, atol=tolerance)


def check_classes(model: Model, given: Any, expected: Any, tolerance: float) -> None:
    rows = expected[0] if isinstance(expected[0], list) else expected
    (found,) = model.classify(given, top=len(rows))
    assert {each.label for each in found} == {row["label"] for row in rows}
    scores = {each.label: each.score for each in found}
    for row in rows:
        assert scores[row["label"]] == pytest.approx(row["score"], abs=tolerance)


def check_tags(model: Model, given: Any, expected: Any, tolerance: float) -> None:
    (found,) = model.tag(given)
    assert [(e.label, e.start, e.end) for e in found] == [
        (row["entity_group"], row["start"], row["end"]) for row in expected
    ]
    for entity, row in zip(found, expected, strict=True):
        assert entity.score == pytest.approx(row["score"], abs=tolerance)
        assert entity.text == given[row["start"] : row["end"]]


def check_answer(model: Model, given: Any, expected: Any, tolerance: float) -> None:
    (found,) = model.answer(given["question"], given["context"])
    assert (found.text, found.start) == (expected["answer"], expected["start"])
    assert found.score == pytest.approx(expected["score"], abs=tolerance)


def check_gap(model: Model, given: Any, expected: Any, tolerance: float) -> None:
    (found,) = model.fill(given, top=len(expected))
    for filling, row in zip(found, expected, strict=True):
        assert filling.score == pytest.approx(row["score"], abs=tolerance)


def check_text(model: Model, given: Any, expected: Any, tolerance: float) -> None:
    assert model.transcribe(given).text == expected["text"]


def check_writing(model: Model, given: Any, expected: Any, tolerance: float) -> None:
    assert "".join(model.generate(given, max_new_tokens=NEW_TOKENS)).strip() == expected


CHECKS: dict[str, Callable[[Model, Any, Any, float], None]] = {
    "embedding": check_embedding,
    "text-classification": check_classes,
    "image-classification": check_classes,
    "audio-classification": check_classes,
    "token-classification": check_tags,
    "question-answering": check_answer,
    "fill-mask": check_gap,
    "automatic-speech-recognition": check_text,
    "text2text-generation": check_writing,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_answers_as_its_framework_does(
    name: str, cases: dict[str, Case], tmp_path: Path, exact: Path
) -> None:
    case = cases[name]
    convert(case, tmp_path / "bundle", "--recipe", exact)
    with edge_sdk.load(tmp_path / "bundle", "x86-64") as model:
        for given, expected in zip(case.inputs, case.answers, strict=True):
            CHECKS[case.task](model, given, expected, SCORE)


@pytest.mark.parametrize("name", ["sentences", "bert-classes", "vit", "mobilenet-v2", "ast"])
def test_the_chosen_variant_stays_within_its_limit(
    name: str, cases: dict[str, Case], tmp_path: Path
) -> None:
    case = cases[name]
    report = convert(case, tmp_path / "bundle")["variants"][0]["report"]
    chosen = next(row for row in report["candidates"] if row["status"] == "chosen")
    assert chosen["agreement"]["drop"] <= report["max_drop"]
    with edge_sdk.load(tmp_path / "bundle", "x86-64") as model:
        for given, expected in zip(case.inputs, case.answers, strict=True):
            CHECKS[case.task](model, given, expected, 0.1)


def test_licence_and_tools_are_in_the_record(
    cases: dict[str, Case], tmp_path: Path, exact: Path
) -> None:
    convert(cases["sentences"], tmp_path / "bundle", "--recipe", exact)
    provenance = open_bundle(tmp_path / "bundle").variant("x86-64").record.provenance
    assert provenance.licence == "apache-2.0"
    assert provenance.tools["optimum"] == "2.1.0"
    assert provenance.tools["torch"].startswith("2.13.0")


def test_what_nobody_can_export_is_refused_with_what_can_be(
    cases: dict[str, Case], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(cases["bert-classes"].folder, folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "unheard-of"}))
    done = edge_sdk_command("convert", folder, "-o", tmp_path / "bundle", "-p", "x86-64")
    assert done.returncode == 2
    assert f"{file}: model_type: transformers cannot read it" in done.stderr
    assert "supported: albert, bart, bert, " in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"intermediate_size": 48},
            "cannot be loaded: RuntimeError: Error(s) in loading",
        ),
        ({"architectures": ["BertForSequenceClassification"]}, "no weights for classifier.bias, "),
    ],
)
def test_files_that_do_not_belong_together_are_named(
    cases: dict[str, Case], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    """transformers itself draws weights that it does not find, and says so in a warning."""
    folder = tmp_path / "model"
    shutil.copytree(cases["sentences"].folder, folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    done = edge_sdk_command("convert", folder, "-o", tmp_path / "bundle", "-p", "x86-64")
    assert done.returncode == 2
    assert f"{folder}: " in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_vectors_do_not_depend_on_their_batch_and_follow_their_prompt(
    cases: dict[str, Case], tmp_path: Path
) -> None:
    case = cases["dense"]
    convert(case, tmp_path / "bundle")  # what a search chooses has the layers too
    with edge_sdk.load(tmp_path / "bundle", "x86-64") as model:
        together = model.embed(case.inputs)
        alone = [model.embed(text)[0] for text in case.inputs]
        np.testing.assert_allclose(together, alone, atol=0.05)
        prompted, written = model.embed("fox", prompt="query"), model.embed("who fox")
        np.testing.assert_array_equal(prompted, written)
        with pytest.raises(InputError, match="none of the model's prompts"):
            model.embed("fox", prompt="passage")


@pytest.mark.parametrize("name", ["slow-tokenizer", "marian"])
def test_a_converted_tokenizer_numbers_texts_as_the_original(
    name: str, cases: dict[str, Case], tmp_path: Path
) -> None:
    texts = [*TEXTS, "  two   spaces ", "an unheard-of word", "漢 xq", "kcots"]
    given = {"model": str(cases[name].folder), "texts": texts}
    python = find("hugging-face").python
    expected = process.call(python, INSIDE, "tokens", given, print, where="tests", timeout=100)
    source = open_source(cases[name].folder)
    assert source.tokenizer is not None
    tokenizer = Tokenizer.from_file(str(source.tokenizer))
    assert [tokenizer.encode(text).ids for text in texts] == expected["tokens"]
