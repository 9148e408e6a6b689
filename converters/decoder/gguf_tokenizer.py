"""The tokenizer and the special tokens of a GGUF file, from its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
_ENDS = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>")


def read_tokenizer(metadata: Metadata, where: str) -> bytes:
    """The content of ``tokenizer.json``.

    Raises:
        SourceError: The kind of tokenizer is not supported, or metadata are missing.
    """
    model = _get(metadata, "model", where)
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


def read_generation(metadata: Metadata, architecture: Architecture) -> Generation:
    """Special tokens, chat template and sampling defaults."""
    texts: list[str] = metadata[f"{_PREFIX}tokens"]

    def token(name: str) -> int | None:
        number = metadata.get(f"{_PREFIX}{name}_token_id")
        return number if isinstance(number, int) and 0 <= number < len(texts) else None

    named = {f"{ours}_token": token(theirs) for ours, theirs in _NAMED.items()}
    ends = [token(name) for name in ("eos", "eot", "eom")]
    kinds = metadata.get(f"{_PREFIX}token_type", ())
    ends += [
        number
        for number, kind in enumerate(kinds)
        if kind == PieceType.CONTROL and texts[number] in _ENDS
    ]
    bos = token("bos")
    return generation_of(
        architecture,
        eos=(number for number in ends if number is not None),
        bos=bos,
        add_bos=bos is not None and metadata.get(f"{_PREFIX}add_bos_token", _begins(metadata)),
        chat_template=str(metadata.get("tokenizer.chat_template", "")),
        tokens={name: texts[number] for name, number in named.items() if number is not None},
        sampling=_sampling(metadata),
    )


def _byte_level(metadata: Metadata, where: str) -> Json:
    texts, kinds = _get(metadata, "tokens", where), _get(metadata, "token_type", where)
    merges = [merge.split(" ", 1) for merge in _get(metadata, "merges", where)]
    added = [
        added_token(number, text, special=kind == PieceType.CONTROL)
        for number, (text, kind) in enumerate(zip(texts, kinds, strict=True))
        if kind in (PieceType.CONTROL, PieceType.USER_DEFINED)
    ]
    return tokenizer_json.byte_level(
        {text: number for number, text in enumerate(texts)},
        [(left, right) for left, right in merges],
        _words(metadata, where),
        added,
    )


def _sentencepiece(metadata: Metadata, where: str) -> Json:
    columns = [_get(metadata, name, where) for name in ("tokens", "scores", "token_type")]
    pieces = [
        Piece(text, score, PieceType(kind)) for text, score, kind in zip(*columns, strict=True)
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


def _sampling(metadata: Metadata) -> Sampling:
    def number(name: str, default: float) -> float:
        return float(metadata.get(f"general.sampling.{name}", default))

    return Sampling(
        temperature=number("temp", 0),
        top_k=int(number("top_k", 0)),
        top_p=number("top_p", 1),
        min_p=number("min_p", 0),
        repetition_penalty=number("penalty_repeat", 1),
    )


def _get(metadata: Metadata, name: str, where: str) -> Any:
    try:
        return metadata[f"{_PREFIX}{name}"]
    except KeyError:
        raise SourceError(
            f"{_PREFIX}{name} is missing",
            where=where,
            remedy="convert the model again with a current llama.cpp",
        ) from None
