"""Tokenizers built from older files and from GGUF encode as the original does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.converts
pytest.importorskip("onnx_ir")

import tokenizers  # noqa: E402

from benchmarks.llm import gguf_file  # noqa: E402
from converters.decoder import gguf_tokenizer, sentencepiece_model  # noqa: E402
from converters.decoder.tokenizer_files import read_tokenizer  # noqa: E402
from converters.decoder.tokenizer_json import (  # noqa: E402
    WORDS,
    byte_level,
    checked,
)
from edge_sdk.errors import SourceError  # noqa: E402
from tests.decoder.ugly import TEXTS  # noqa: E402

MODELS = Path(__file__).parent / "tokenizers"
EXPECTED = json.loads((MODELS / "expected.json").read_text())
SPECIAL = ("<|im_start|>", "<|im_end|>")


def opened(content: bytes) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(content.decode())


def trained(name: str) -> tokenizers.Tokenizer:
    """A byte-level tokenizer with merges, digits and words cut as ``name`` does."""
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(byte_level({}, [], WORDS[name], [])))
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=list(SPECIAL),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS] * 3, trainer)
    tokenizer.add_tokens([tokenizers.AddedToken("<tool>", normalized=False)])
    return tokenizer


def ids(tokenizer: tokenizers.Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", EXPECTED)
def test_sentencepiece_models_encode_as_sentencepiece_does(name: str) -> None:
    content = sentencepiece_model.read_model(MODELS / f"{name}.model", legacy=True)
    tokenizer = opened(checked(content, name))
    for text, wanted in zip(TEXTS, EXPECTED[name], strict=True):
        if "<tool>" not in text:  # transformers puts a space after added tokens
            assert ids(tokenizer, text) == wanted, text


def test_a_model_that_is_not_legacy_has_a_space_at_the_beginning_only() -> None:
    content = sentencepiece_model.read_model(MODELS / "llama.model", legacy=False)
    tokenizer = opened(checked(content, "llama"))
    text = "the<tool>fox"
    assert ids(tokenizer, text) == EXPECTED["llama"][TEXTS.index(text)]


@pytest.mark.parametrize("name", EXPECTED)
def test_sentencepiece_models_decode_what_they_encode(name: str) -> None:
    content = sentencepiece_model.read_model(MODELS / f"{name}.model", legacy=True)
    tokenizer = opened(checked(content, name))
    for text in ("Größe 🙂 façade", "温度を\nok", "a  b"):
        wanted = text.replace("  ", " ") if name == "folded" else text
        assert tokenizer.decode(ids(tokenizer, text)) == wanted


def test_control_tokens_are_one_token_and_not_shown() -> None:
    content = sentencepiece_model.read_model(MODELS / "internlm2.model", legacy=True)
    tokenizer = opened(checked(content, "internlm2"))
    found = ids(tokenizer, "<|im_start|>user<|im_end|>")
    assert [found[0], found[-1]] == [tokenizer.token_to_id(text) for text in SPECIAL]
    assert tokenizer.decode(found) == "user"


@pytest.mark.parametrize("name", WORDS)
def test_byte_level_tokenizers_survive_gguf(name: str) -> None:
    original = trained(name)
    metadata = gguf_file.from_tokenizer_json(original.to_str().encode(), name)
    given = {f"tokenizer.{key}": value for key, value in metadata.items()}
    rebuilt = opened(gguf_tokenizer.read_tokenizer(given, "model.gguf"))
    for text in (*TEXTS, f"{SPECIAL[0]}user\n{SPECIAL[1]}"):
        wanted = ids(original, text)
        assert ids(rebuilt, text) == wanted, text
        assert rebuilt.decode(wanted) == original.decode(wanted)
    assert rebuilt.get_vocab() == original.get_vocab()


@pytest.mark.parametrize("name", ["llama", "internlm2"])
def test_sentencepiece_models_survive_gguf(name: str) -> None:
    pieces, _, normalizer = sentencepiece_model.parse((MODELS / f"{name}.model").read_bytes())
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [piece.text for piece in pieces],
        "tokenizer.ggml.scores": [piece.score for piece in pieces],
        "tokenizer.ggml.token_type": [int(piece.type) for piece in pieces],
        "tokenizer.ggml.add_space_prefix": bool(normalizer.get(3, 1)),
    }
    tokenizer = opened(gguf_tokenizer.read_tokenizer(metadata, "model.gguf"))
    for text, wanted in zip(TEXTS, EXPECTED[name], strict=True):
        if "<tool>" not in text:
            assert ids(tokenizer, text) == wanted, text


def test_splitters_differ_where_their_models_do() -> None:
    """A wrong name would go unnoticed in common text."""
    cut = {
        name: [
            part
            for part, _ in opened(
                checked(byte_level({}, [], words, []), name)
            ).pre_tokenizer.pre_tokenize_str("1234 it'S")
        ]
        for name, words in WORDS.items()
    }
    assert cut["gpt-2"] == ["1234", "Ġit", "'", "S"]
    assert cut["smollm"] == ["1", "2", "3", "4", "Ġit", "'", "S"]
    assert cut["llama-bpe"] == ["123", "4", "Ġit", "'S"]
    assert cut["qwen2"] == ["1", "2", "3", "4", "Ġit", "'S"]
    assert cut["chatglm-bpe"] == cut["llama-bpe"]
    assert cut["tekken"] == cut["qwen2"]


def test_a_word_that_is_a_token_needs_no_merges_where_the_model_says_so() -> None:
    vocab = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}
    for name, wanted in (("llama-bpe", [4]), ("qwen2", [3, 2])):
        tokenizer = opened(checked(byte_level(vocab, [("a", "b")], WORDS[name], []), name))
        assert ids(tokenizer, "abc") == wanted


def test_vocab_and_merges_files_make_a_tokenizer(tmp_path: Path) -> None:
    original = trained("qwen2")
    model = json.loads(original.to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"]), ""]
    (tmp_path / "merges.txt").write_text("\n".join(lines))
    number = original.token_to_id("<tool>")
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {
            str(original.token_to_id(text)): {"content": text, "special": True} for text in SPECIAL
        },
    }
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<tool>": number}))
    rebuilt = opened(read_tokenizer(tmp_path, settings))
    for text in TEXTS:
        assert ids(rebuilt, text) == ids(original, text), text


def test_tokens_that_only_the_settings_name_are_added(tmp_path: Path) -> None:
    original = trained("gpt-2")
    (tmp_path / "tokenizer.json").write_text(original.to_str())
    number = original.get_vocab_size()
    token = {"content": "<|eot|>", "lstrip": False, "special": True}
    settings = {"added_tokens_decoder": {str(number): token}}
    assert ids(opened(read_tokenizer(tmp_path, settings)), "<|eot|>") == [number]


def test_a_damaged_sentencepiece_model_is_refused(tmp_path: Path) -> None:
    content = (MODELS / "llama.model").read_bytes()
    for number, damaged in enumerate([b"", content[:1000], b"\xff" * 50, b"{}", content[1:]]):
        (tmp_path / "tokenizer.model").write_bytes(damaged)
        with pytest.raises(SourceError, match="not a SentencePiece model") as caught:
            sentencepiece_model.read_model(tmp_path / "tokenizer.model", legacy=True)
        assert "tokenizer.model" in str(caught.value.where), number


def test_a_unigram_model_is_refused(tmp_path: Path) -> None:
    piece, trainer = b"\x0a\x03\x0a\x01a", b"\x12\x02\x18\x01"  # model_type = UNIGRAM
    (tmp_path / "tokenizer.model").write_bytes(piece + trainer)
    with pytest.raises(SourceError, match="that is not BPE"):
        read_tokenizer(tmp_path, {})


def test_a_tiktoken_file_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_text("IQ== 0\nIg== 1\nIw== 2\n")
    with pytest.raises(SourceError, match="not a SentencePiece model"):
        read_tokenizer(tmp_path, {})


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("tokenizer.json", '{"model": 1}', "not a tokenizer"),
        ("tokenizer.json", "{", "not valid JSON"),
        ("tokenizer.json", '{"added_tokens": [{"id": "x"}]}', "added tokens"),
        ("merges.txt", "a b c\n", "'a b c' is not a pair of tokens"),
    ],
)
def test_a_damaged_tokenizer_is_named(file: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / file).write_text(text)
    with pytest.raises(SourceError, match=message) as caught:
        read_tokenizer(tmp_path, {})
    assert file in str(caught.value.where)


def test_a_folder_without_a_tokenizer_says_what_to_put_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no tokenizer") as caught:
        read_tokenizer(tmp_path, {})
    assert "tokenizer.json" in str(caught.value.remedy)
