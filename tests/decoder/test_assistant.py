"""The dialogue model of ``examples/assistant``: corpus, files, and what quantization costs."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import edge_sdk
from converters import convert
from edge_sdk.bundle.record import Generation
from edge_sdk.runtime.generation.chat_template import Message, render
from edge_sdk.runtime.model import Model
from examples.assistant import answers, evaluate
from examples.assistant.dialogue import (
    calibration_set,
    heldout_set,
    phrasings,
    readings,
    training_set,
)
from examples.assistant.encoding import START, encode, pieces
from examples.assistant.gateway import Device

pytestmark = pytest.mark.converts

FOLDER = Path(__file__).parents[2] / "examples" / "assistant"
MODEL = FOLDER / "model"


def read_dialogues(name: str) -> list[list[dict[str, str]]]:
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"] for line in lines]


def boiler() -> Device:
    return Device("boiler", "C", 61, True, 60, 40, 75)


def test_no_heldout_phrasing_can_be_trained_on() -> None:
    assert len(phrasings("train")) > 1000
    assert len(phrasings("heldout")) > 100
    assert not phrasings("train") & phrasings("heldout")


def test_no_heldout_reading_can_be_trained_on() -> None:
    trained, heldout = readings(training_set()), readings(heldout_set())
    assert len(trained) > 1000
    assert len(heldout) > 200
    assert not trained & heldout


def test_no_calibration_dialogue_is_trained_on() -> None:
    trained = {dialogue.system for dialogue in training_set()}
    assert not trained & {dialogue.system for dialogue in calibration_set()}


def test_committed_dialogues_are_what_the_generator_draws() -> None:
    assert read_dialogues("heldout.jsonl") == [one.messages() for one in heldout_set()]
    assert read_dialogues("calibration.jsonl") == [one.messages() for one in calibration_set()]


def test_setpoint_within_limits_is_remembered() -> None:
    device = boiler()
    text = "The boiler allows 40 to 75 C. Done, the boiler holds 65 C."
    assert answers.change(device, 65) == text
    assert answers.about("setpoint", device) == "The boiler holds 65 C."


def test_setpoint_beyond_limits_changes_nothing() -> None:
    device = boiler()
    assert answers.change(device, 76) == "The boiler allows 40 to 75 C, not 76 C."
    assert device.setpoint == 60


def test_step_is_computed_before_it_is_held_against_limits() -> None:
    text = "The boiler holds 60 C, 10 less is 50 C. The boiler allows 40 to 75 C. Done, the boiler"
    device = boiler()
    assert answers.step(device, -10) == f"{text} holds 50 C."
    assert device.setpoint == 50
    text = "The boiler holds 50 C, 30 more is 80 C. The boiler allows 40 to 75 C, not 80 C."
    assert answers.step(device, 30) == text
    assert device.setpoint == 50


def test_styles_say_the_same_differently() -> None:
    answer = answers.switch(boiler(), on=False)
    assert answers.styled(answer, "plain") == "Done, the boiler is now off."
    assert answers.styled(answer, "terse") == "- boiler is now off."
    assert answers.styled(answer, "pirate") == "Arr! Aye aye, the boiler is now off, matey!"


def test_answers_quote_the_gateways_line() -> None:
    quoting = {"status", "power", "reading", "setpoint", "limits", "firmware", "uptime", "name"}
    first = [(one.system, one.exchanges[0]) for one in islice(heldout_set(), 100)]
    quoted = [said.answer in line for line, said in first if said.intent in quoting]
    strangers = [said for _, said in first if said.answer.startswith("There is no")]
    assert sum(quoted) > 30
    assert quoted.count(False) <= len(strangers)


def test_what_stood_before_is_repeated_without_any_training() -> None:
    torch = pytest.importorskip("torch")
    circuit = pytest.importorskip("examples.assistant.circuit")
    decoder = pytest.importorskip("examples.assistant.decoder")
    torch.manual_seed(0)
    model = decoder.Decoder(decoder.Shape(1152))
    tokens = torch.randint(0, 1152, (4, 150)).tile(2)
    with torch.no_grad():
        untrained = model(tokens).argmax(dim=2)
        circuit.begin_by_copying(model)
        likeliest = model(tokens).argmax(dim=2)
    second = slice(160, -1)
    assert (untrained == tokens.roll(-1, 1))[:, second].float().mean() < 0.1
    assert (likeliest == tokens.roll(-1, 1))[:, second].float().mean() > 0.95


def test_template_writes_what_was_trained_on() -> None:
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    config = json.loads((MODEL / "tokenizer_config.json").read_text(encoding="utf-8"))
    generation = Generation(
        layers=1, kv_heads=1, head_dim=8, vocab=8, context=8, chat_template=config["chat_template"]
    )
    for dialogue in read_dialogues("heldout.jsonl")[:5]:
        messages = [Message(one["role"], one["content"]) for one in dialogue]
        text = render(generation, messages, answer=False)
        assert text == "".join(piece for piece, _ in pieces(dialogue))
        assert tuple(tokenizer.encode(text).ids) == encode(tokenizer, dialogue).tokens
        asking = render(generation, messages[:2])
        assert asking.endswith(f"{START}assistant\n")
        assert text.startswith(asking)
    alone = render(generation, [Message("user", "hello")])
    assert alone.startswith(f"{START}system\nThis is gateway north-1")


def converted(recipe: str, folder: Path) -> Model:
    """The assistant for this machine, by one candidate."""
    (folder / "recipe.toml").write_text(f'name = "{recipe}"\n', encoding="utf-8")
    bundle = folder / f"{recipe}.bundle"
    convert(
        MODEL,
        ["x86-64"],
        bundle,
        data=FOLDER / "calibration.jsonl",
        recipe=folder / "recipe.toml",
    )
    return edge_sdk.load(bundle, profile="x86-64", prepare=False)


def test_answers_are_right_and_int4_loses_at_most_one_in_a_hundred(tmp_path: Path) -> None:
    dialogues = list(evaluate.read_dialogues())[:40]
    right = {}
    for recipe in ("fp32", "int4-b32"):
        tried = list(evaluate.answers(converted(recipe, tmp_path), dialogues))
        assert len(tried) > 200
        right[recipe] = sum(one.is_right for one in tried) / len(tried)
    scored = json.loads((FOLDER / "metrics.json").read_text(encoding="utf-8"))["heldout"]
    assert abs(right["fp32"] - scored["exact_match"]) < 0.03  # of all 200 dialogues, by torch
    assert right["fp32"] > 0.9, right
    assert right["int4-b32"] >= right["fp32"] - 0.01, right
