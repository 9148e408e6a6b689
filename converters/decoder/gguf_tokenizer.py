"""The tokenizer and the special tokens of a GGUF file, from its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from converters.decoder import tokenizer_json
from converters.decoder.architecture import Architecture
from converters.decoder.hf_generation import generation_of
from converters.decoder.tokenizer_json import (
    WORDS,
    Json,
    Piece,
    PieceType,
    Words,
    added_token,
    checked,
)
from edge_sdk.bundle.record import Generation, Sampling
from edge_sdk.errors import SourceError

Metadata = Mapping[str, Any]
_T = TypeVar("_T", str, int, float)

_PREFIX = "tokenizer.ggml."
# Other names of the same way to cut words.
_ALIASES = {
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "glm4": "chatglm-bpe",
    "deepseek-r1-qwen": "qwen2",
}
_NAMED = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
# Files often name one token that ends a turn where the model has several; llama.cpp knows these.
_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>")


def read_tokenizer(metadata: Metadata, where: str) -> bytes:
    """The content of ``tokenizer.json``.

    Raises:
        SourceError: The kind of tokenizer is not supported, or metadata are missing.
    """
    model = metadata.get(f"{_PREFIX}model")
    if model == "gpt2":
        content = _byte_level(metadata, where)
    elif model == "llama":
        content = _sentencepiece(metadata, where)
    else:
        raise SourceError(
            f"{_PREFIX}model = {model!r} is not supported",
            where=where,
            remedy="supported: gpt2 (byte-level BPE), llama (SentencePiece BPE)",
        )
    return checked(content, where)


def read_generation(metadata: Metadata, architecture: Architecture, where: str) -> Generation:
    """Special tokens, chat template and sampling defaults.

    Raises:
        SourceError: A field has a wrong type.
    """
    texts, kinds = _list(metadata, "tokens", str, where), _list(metadata, "token_type", int, where)

    def token(name: str) -> int | None:
        number = metadata.get(f"{_PREFIX}{name}_token_id")
        return number if isinstance(number, int) and 0 <= number < len(texts) else None

    named = {f"{ours}_token": token(theirs) for ours, theirs in _NAMED.items()}
    ends = [token(name) for name in ("eos", "eot", "eom")]
    ends += [
        number
        for number, (text, kind) in enumerate(zip(texts, kinds, strict=True))
        if kind == PieceType.CONTROL and text in _ENDS
    ]
    bos = token("bos")
    return generation_of(
        architecture,
        eos=(number for number in ends if number is not None),
        bos=bos,
        add_bos=bos is not None
        and bool(metadata.get(f"{_PREFIX}add_bos_token", _begins(metadata))),
        chat_template=str(metadata.get("tokenizer.chat_template", "")),
        tokens={name: texts[number] for name, number in named.items() if number is not None},
        sampling=_sampling(metadata, where),
    )


def _byte_level(metadata: Metadata, where: str) -> Json:
    texts, kinds = _list(metadata, "tokens", str, where), _list(metadata, "token_type", int, where)
    merges = [merge.partition(" ") for merge in _list(metadata, "merges", str, where)]
    added = [
        added_token(number, text, special=kind == PieceType.CONTROL)
        for number, (text, kind) in enumerate(zip(texts, kinds, strict=True))
        if kind in (PieceType.CONTROL, PieceType.USER_DEFINED)
    ]
    return tokenizer_json.byte_level(
        {text: number for number, text in enumerate(texts)},
        [(left, right) for left, _, right in merges],
        _words(metadata, where),
        added,
    )


def _sentencepiece(metadata: Metadata, where: str) -> Json:
    texts, kinds = _list(metadata, "tokens", str, where), _list(metadata, "token_type", int, where)
    scores = _list(metadata, "scores", float, where)
    known = frozenset(PieceType)
    pieces = [
        Piece(text, score, PieceType(kind) if kind in known else PieceType.UNUSED)
        for text, score, kind in zip(texts, scores, kinds, strict=True)
    ]
    return tokenizer_json.sentencepiece(
        pieces, prefix="each" if metadata.get(f"{_PREFIX}add_space_prefix", True) else "none"
    )


def _splitter(metadata: Metadata) -> str:
    """Name of the way to cut words, the same for all its aliases."""
    name = str(metadata.get(f"{_PREFIX}pre", "default"))
    return _ALIASES.get(name, name)


def _words(metadata: Metadata, where: str) -> Words:
    name = _splitter(metadata)
    words = WORDS.get(name)
    if words is None:
        raise SourceError(
            f"{_PREFIX}pre = {name!r} is not supported",
            where=where,
            remedy=f"supported: {', '.join(sorted({*WORDS, *_ALIASES}))}; "
            "or give the Hugging Face folder",
        )
    return words


def _begins(metadata: Metadata) -> bool:
    """Whether prompts begin with a token where the file does not say: as llama.cpp has it."""
    if metadata.get(f"{_PREFIX}model") == "llama":
        return True
    return _splitter(metadata) in ("llama-bpe", "tekken")


def _sampling(metadata: Metadata, where: str) -> Sampling:
    def number(name: str, default: float) -> float:
        value = metadata.get(f"general.sampling.{name}", default)
        if not isinstance(value, int | float):
            raise _wrong(f"general.sampling.{name}", "is not a number", where)
        return float(value)

    return Sampling(
        temperature=number("temp", 0),
        top_k=int(number("top_k", 0)),
        top_p=number("top_p", 1),
        min_p=number("min_p", 0),
        repetition_penalty=number("penalty_repeat", 1),
    )


def _list(metadata: Metadata, name: str, kind: type[_T], where: str) -> list[_T]:
    """A column of the vocabulary, as long as its tokens."""
    key = f"{_PREFIX}{name}"
    value = metadata.get(key)
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise _wrong(key, f"is not a list of {kind.__name__}", where)
    tokens = metadata.get(f"{_PREFIX}tokens")
    if name != "merges" and isinstance(tokens, list) and len(value) != len(tokens):
        raise _wrong(key, f"has {len(value)} entries for {len(tokens)} tokens", where)
    return value


def _wrong(key: str, what: str, where: str) -> SourceError:
    return SourceError(
        f"{key} {what}", where=where, remedy="convert the model again with a current llama.cpp"
    )
