"""Tokens over tables are those of the library, whatever the text."""

from __future__ import annotations

import json
import random
import sys
from unicodedata import category

import pytest

pytest.importorskip("tokenizers")

from tokenizers import Tokenizer

from edge_sdk.runtime.tokenizer.splitting import UNCERTAIN, Splitter, patterns_of
from tests.tokenizer.makers import FAMILIES, SPECIAL, WORDS, library, ours

PIECES = (
    *(
        "a",
        "b",
        "e",
        "the",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "'",
        "'s",
        "'LL",
        "1",
        "22",
        "0000",
        ".",
    ),
    *(
        "!?",
        "é",
        "ß",
        "и",
        "κ",
        "温",
        "が",
        "م",
        "ก",
        "½",
        "Ⅷ",
        "٣",
        "\xa0",
        "\u2003",
        "\x85",
        "\x1c",
    ),
    *(
        "\x00",
        "\x0b",
        "🙂",
        "👩‍🔧",
        "\u200d",
        "𝒜",
        "<|im",
        "<tool",
        "_",
        "-",
        "==",
        "\ufeff",
        "\ue000",
    ),
    *SPECIAL,
    "<tool>",
)


@pytest.mark.parametrize("family", FAMILIES)
def test_random_texts_have_the_library_s_tokens(family: str) -> None:
    theirs, tokenizer = library(family), ours(library(family))
    draw = random.Random(family)
    for _ in range(1500):
        text = "".join(draw.choices(PIECES, k=draw.randrange(1, 24)))
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text).ids == ids, repr(text)
        assert tokenizer.decode(ids) == theirs.decode(ids), repr(text)


@pytest.mark.parametrize("family", ["smollm", "llama"])
def test_every_character_is_of_the_library_s_class(family: str) -> None:
    theirs = library(family)
    patterns = patterns_of(json.loads(theirs.to_str())["pre_tokenizer"])
    assert patterns
    splitter = Splitter(patterns, composed=False)
    known = [
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if category(character) not in ("Cn", "Cs", "Co") and character not in UNCERTAIN
    ]
    # A letter, a number and a space beside it tell the classes apart.
    text = "".join(f"a{each}1{each} " for each in known)
    found = list(splitter.split(text, splitter.shadow(text)))
    expected = theirs.pre_tokenizer.pre_tokenize_str(text)
    assert found == [text[begin:end] for _, (begin, end) in expected]


@pytest.mark.parametrize("family", FAMILIES)
def test_random_tokens_read_as_the_library_shows_them(family: str) -> None:
    theirs, tokenizer = library(family), ours(library(family))
    draw = random.Random(family)
    for _ in range(1500):  # bytes that are no characters among them, and tokens that are none
        ids = draw.choices(range(theirs.get_vocab_size() + 20), k=draw.randrange(1, 16))
        for skipped in (True, False):
            expected = theirs.decode(ids, skip_special_tokens=skipped)
            assert tokenizer.decode(ids, skip_special_tokens=skipped) == expected
    for token in range(theirs.get_vocab_size() + 2):
        assert (tokenizer.id_to_token(token) is None) == (theirs.id_to_token(token) is None)


def test_added_tokens_are_the_library_s() -> None:
    theirs, tokenizer = library("qwen"), ours(library("qwen"))
    expected = theirs.get_added_tokens_decoder()
    found = tokenizer.get_added_tokens_decoder()
    assert {token: (each.content, each.special) for token, each in found.items()} == {
        token: (each.content, each.special) for token, each in expected.items()
    }


@pytest.mark.parametrize("text", ["a" * 20_000, "the" * 5_000, " " * 10_000, "1" * 5_000])
def test_a_long_word_merges_in_time(text: str) -> None:
    assert ours(library("gpt2")).encode(text).ids == library("gpt2").encode(text).ids


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("gpt2", "a \U000e0fff b"),
        ("llama", "it'\u017f"),
        ("qwen", "cafe\u0301"),
        ("qwen", "\u212b"),
    ],
)
def test_the_library_is_asked_where_a_text_is_uncertain(family: str, text: str) -> None:
    asked = []

    def load() -> Tokenizer:
        asked.append(text)
        return library(family)

    tokenizer = ours(library(family), load)
    assert tokenizer.encode(WORDS[0]).ids
    assert not asked
    expected = library(family).encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text).ids == expected
    assert asked


def test_half_a_character_is_refused_as_the_library_does() -> None:
    with pytest.raises(TypeError):
        library("gpt2").encode("a\ud800")
    with pytest.raises(TypeError):
        ours(library("gpt2"), lambda: library("gpt2")).encode("a\ud800")
