"""The dialogue model of ``examples/assistant``: corpus, files, and what quantization costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from edge_sdk.bundle.record import Generation
from edge_sdk.runtime.generation.chat_template import Message, render
from examples.assistant import answers
from examples.assistant.dialogue import (
    calibration_set,
    heldout_set,
    phrasings,
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
    return Device("boiler", 2, "C", "61.5", True, 60, 40, 75)


def test_no_heldout_phrasing_can_be_trained_on() -> None:
    assert len(phrasings("train")) > 1000
    assert len(phrasings("heldout")) > 100
    assert not phrasings("train") & phrasings("heldout")


def test_no_gateway_is_both_trained_on_and_held_out() -> None:
    trained = {dialogue.system for dialogue in training_set()}
    assert not trained & {dialogue.system for dialogue in (*heldout_set(), *calibration_set())}


def test_committed_dialogues_are_what_the_generator_draws() -> None:
    assert read_dialogues("heldout.jsonl") == [one.messages() for one in heldout_set()]
    assert read_dialogues("calibration.jsonl") == [one.messages() for one in calibration_set()]


def test_setpoint_within_limits_is_remembered() -> None:
    device = boiler()
    assert answers.change(device, 65).plain == "Done, the boiler-2 is set to 65 C."
    assert answers.about("setpoint", device).plain == "The boiler-2 is set to 65 C."


def test_setpoint_beyond_limits_changes_nothing() -> None:
    device = boiler()
    text = "No, the boiler-2 can only be set from 40 to 75 C."
    assert answers.change(device, 76).plain == text
    assert device.setpoint == 60


def test_styles_say_the_same_differently() -> None:
    answer = answers.switch(boiler(), on=False)
    assert answer.styled("plain") == "Done, the boiler-2 is off."
    assert answer.styled("terse") == "Now off."
    assert answer.styled("pirate") == "Arr! Aye aye, the boiler-2 be off."


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
    assert alone.startswith(f"{START}system\nGateway demo-1")
