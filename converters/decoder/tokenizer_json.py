"""Builds ``tokenizer.json`` for tokenizers that come in an older form. Pure: values in, values out.

Two kinds of BPE exist among decoders: over bytes with a regular expression that
splits words (:func:`byte_level`), and SentencePiece's over characters, where a
piece's score takes the place of a list of merges (:func:`sentencepiece`).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

import tokenizers

from edge_sdk.errors import SourceError

Json = dict[str, Any]

# GPT-2's own expression is built into the ByteLevel pre-tokenizer.
_GPT2 = None
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace("{1,3}", "")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Words:
    """How byte-level BPE cuts a text before merging.

    Attributes:
        pattern: Expression whose matches are words; ``None`` for GPT-2's.
        digits: Every digit is a word, before ``pattern`` applies.
        nfc: The text is brought into Unicode's composed form first.
        whole: A word that is a token is taken as it is, whatever the merges say.
    """

    pattern: str | None
    digits: bool = False
    nfc: bool = False
    whole: bool = False


# By the name that GGUF's `tokenizer.ggml.pre` gives them.
WORDS: Mapping[str, Words] = {
    "gpt-2": Words(_GPT2),
    "smollm": Words(_GPT2, digits=True),
    "llama-bpe": Words(_LLAMA3, whole=True),
    "qwen2": Words(_QWEN2, nfc=True),
    "chatglm-bpe": Words(_LLAMA3),
    "tekken": Words(_TEKKEN, whole=True),
}


class PieceType(IntEnum):
    """What a piece of a SentencePiece vocabulary is; GGUF uses the same numbers."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    """An entry of a SentencePiece vocabulary; its index is its id."""

    text: str
    score: float
    type: PieceType


def byte_level(
    vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], words: Words, added: Sequence[Json]
) -> Json:
    """A byte-level BPE tokenizer, as GPT-2, Llama 3 and Qwen2 have it.

    Args:
        vocab: Token (in the byte alphabet of GPT-2) -> id.
        merges: Pairs, first merged first.
        words: How a text is cut into words.
        added: Tokens that are matched before the text is cut; see :func:`added_token`.
    """
    cuts: list[Json] = []
    if words.digits:
        cuts.append({"type": "Digits", "individual_digits": True})
    if words.pattern is not None:
        split = {"Regex": words.pattern}
        cuts.append({"type": "Split", "pattern": split, "behavior": "Isolated", "invert": False})
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "added_tokens": list(added),
        "normalizer": {"type": "NFC"} if words.nfc else None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [*cuts, {**level, "use_regex": words.pattern is None}],
        },
        "decoder": {**level, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": dict(vocab),
            "merges": list(merges),
            "ignore_merges": words.whole,
        },
    }


def sentencepiece(
    pieces: Sequence[Piece],
    *,
    prefix: Literal["each", "first", "none"] = "each",
    charsmap: bytes = b"",
    collapse: bool = False,
) -> Json:
    """A SentencePiece BPE tokenizer, as Llama 2 and InternLM2 have it.

    Args:
        pieces: The vocabulary.
        prefix: Where a space is put before the text: at the beginning of the text
            and after each control token, at the beginning only, or nowhere.
        charsmap: SentencePiece's compiled normalization, empty for none.
        collapse: Several spaces become one, and those at the ends are dropped.
    """
    vocab = {piece.text: number for number, piece in enumerate(pieces)}
    unknown = [piece.text for piece in pieces if piece.type == PieceType.UNKNOWN]
    return {
        "version": "1.0",
        "added_tokens": [
            added_token(number, piece.text, special=piece.type != PieceType.USER_DEFINED)
            for number, piece in enumerate(pieces)
            if piece.type in (PieceType.UNKNOWN, PieceType.CONTROL, PieceType.USER_DEFINED)
        ],
        "normalizer": spaces(prefix, charsmap, collapse),
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": "first",
            "split": False,
        }
        if prefix == "first"
        else None,
        "decoder": _decoder(strip=prefix != "none"),
        "model": {
            "type": "BPE",
            "vocab": vocab,
            "merges": _merges(pieces, vocab),
            "unk_token": unknown[0] if unknown else None,
            "fuse_unk": True,
            "byte_fallback": any(piece.type == PieceType.BYTE for piece in pieces),
        },
    }


def added_token(number: int, text: str, *, special: bool = True) -> Json:
    """An entry of ``added_tokens``: matched in the text as it is, before anything else."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": text, **flags, "special": special}


def checked(content: Json, where: str) -> bytes:
    """``tokenizer.json`` as bytes, once the library that the device uses has read it.

    Raises:
        SourceError: The library refuses it.
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    try:
        tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # noqa: BLE001 - the library has no narrower one
        raise SourceError(
            f"not a tokenizer: {error}", where=where, remedy="download it again"
        ) from None
    return text.encode()


def spaces(prefix: str, charsmap: bytes, collapse: bool) -> Json | None:
    """What a SentencePiece tokenizer does to a text before all else; see :func:`sentencepiece`."""
    steps: list[Json] = []
    if charsmap:
        encoded = base64.b64encode(charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": encoded})
    if collapse:
        steps.append({"type": "Replace", "pattern": {"Regex": r"\A +| +\z"}, "content": ""})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    if prefix == "each":
        steps.append({"type": "Prepend", "prepend": "▁"})
    if prefix != "first":
        steps.append({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
    return {"type": "Sequence", "normalizers": steps} if steps else None


def _decoder(*, strip: bool) -> Json:
    steps: list[Json] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if strip:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _merges(pieces: Sequence[Piece], vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    """Merges that give the same tokens as merging the pair with the best score first.

    Every way to cut a piece in two is a merge; among those of one piece the
    order is that of Hugging Face's converter, so that results are the same.
    """
    found = []
    for piece in pieces:
        if piece.type != PieceType.NORMAL:
            continue
        cuts = ((piece.text[:i], piece.text[i:]) for i in range(1, len(piece.text)))
        pairs = [pair for pair in cuts if pair[0] in vocab and pair[1] in vocab]
        pairs.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        found += [(piece.score, len(left), len(right), left, right) for left, right in pairs]
    found.sort(key=lambda merge: merge[:3], reverse=True)
    return [merge[3:] for merge in found]
