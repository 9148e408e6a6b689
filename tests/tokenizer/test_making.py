"""What tables cannot express, or would not do alike, is left to the library."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("tokenizers")

from tests.tokenizer.makers import file_of, header_of, library

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "normalizer"),
        ({"pre_tokenizer": BYTES | {"add_prefix_space": True}}, "pre-tokenizer"),
        ({"pre_tokenizer": None}, "pre-tokenizer"),
        (
            {
                "pre_tokenizer": {
                    "type": "Split",
                    "pattern": {"Regex": r"\p{Lu}+"},
                    "behavior": "Isolated",
                    "invert": False,
                }
            },
            "pre-tokenizer",
        ),
        ({"decoder": None}, "decoder"),
    ],
)
def test_parts_that_are_not_known_are_refused(changes: dict[str, Any], reason: str) -> None:
    assert reason in header_of(file_of(library("gpt2"), **changes)).refused


@pytest.mark.parametrize("field", ["lstrip", "rstrip", "single_word"])
def test_added_tokens_that_take_their_surroundings_are_refused(field: str) -> None:
    added = json.loads(library("gpt2").to_str())["added_tokens"]
    added[1][field] = True
    assert "surroundings" in header_of(file_of(library("gpt2"), added_tokens=added)).refused


@pytest.mark.parametrize(
    "changes", [{"dropout": 0.5}, {"end_of_word_suffix": "</w>"}, {"byte_fallback": True}]
)
def test_other_ways_of_merging_are_refused(changes: dict[str, Any]) -> None:
    model = json.loads(library("gpt2").to_str())["model"] | changes
    assert "model" in header_of(file_of(library("gpt2"), model=model)).refused


def test_a_vocabulary_without_all_bytes_is_refused() -> None:
    model = json.loads(library("gpt2").to_str())["model"]
    del model["vocab"]["Ā"]  # byte 0
    assert "byte" in header_of(file_of(library("gpt2"), model=model)).refused


def test_tables_that_do_something_else_than_the_library_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edge_sdk.runtime.tokenizer import splitting

    assert not header_of(file_of(library("llama"))).refused
    wrong = dict.fromkeys(splitting.PATTERNS, splitting.GPT2)
    monkeypatch.setattr(splitting, "PATTERNS", wrong)
    assert "differently" in header_of(file_of(library("llama"))).refused
