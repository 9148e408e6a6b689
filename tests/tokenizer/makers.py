"""Tokenizers in the manner of each family, trained in memory on a few words."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from edge_sdk.runtime.tokenizer import making, table
from edge_sdk.runtime.tokenizer.byte_level import ByteLevelTokenizer
from edge_sdk.runtime.tokenizer.table import Header, Table

WORDS = (
    "the pump's pressure isn't high and they'll look at it again while we've been waiting",
    "température élevée à l'étage, Größe übermäßig, привет мир, γειά σου κόσμε, 温度が高い",
    "if (x == 10) { return x[i]; }  // 12345 67.89\n\n\tfor i in range(100):\n    pass\n",
    "👩‍🔧 works 🙂🙂 ½ ² and so on ... --- ===",
)
LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im|>")
FAMILIES = ("gpt2", "smollm", "llama", "qwen")


def refuse() -> Tokenizer:
    """Stands for the library where it must not be needed."""
    raise AssertionError("the library was asked")


@cache
def library(family: str) -> Tokenizer:
    """The library's tokenizer of one of :data:`FAMILIES`."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=family == "llama"))
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pattern = LLAMA if family == "llama" else LLAMA.replace("{1,3}", "")
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = {
        "gpt2": words,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words]),
    }.get(family, pre_tokenizers.Sequence([split, bytes_only]))
    if family == "qwen":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [word for text in WORDS for word in (text, *text.split())],
        trainers.BpeTrainer(
            vocab_size=700,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.add_tokens(["<tool>", "  "])
    return tokenizer


def file_of(tokenizer: Tokenizer, **changes: Any) -> bytes:
    """Its ``tokenizer.json``, with parts of it replaced."""
    return json.dumps(json.loads(tokenizer.to_str()) | changes).encode()


def header_of(data: bytes) -> Header:
    """What is made of a ``tokenizer.json``."""
    found = table.parsed(memoryview(making.made(data, "digest", Tokenizer.from_buffer(data))))
    assert found is not None
    return found[0]


def ours(tokenizer: Tokenizer, fallback: Callable[[], Tokenizer] = refuse) -> ByteLevelTokenizer:
    """The same tokenizer over tables."""
    found = table.parsed(memoryview(making.made(file_of(tokenizer), "digest", tokenizer)))
    assert found is not None
    assert not found[0].refused
    return ByteLevelTokenizer(Table(*found), fallback)
