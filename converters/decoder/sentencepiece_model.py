"""Reads ``tokenizer.model``, SentencePiece's own file, without SentencePiece.

The file is a protocol buffer (``ModelProto`` of sentencepiece_model.proto), of
which a few fields matter; the wire format is simple enough to walk.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converters.decoder import tokenizer_json
from converters.decoder.tokenizer_json import Json, Piece, PieceType
from edge_sdk.errors import SourceError

BPE = 2


def read_model(file: Path, *, legacy: bool) -> Json:
    """The content of ``tokenizer.json`` for a SentencePiece model.

    Args:
        file: The ``tokenizer.model``.
        legacy: A space is put after each control token too, as transformers first did it.

    Raises:
        SourceError: The file is damaged, or holds another kind of model than BPE.
    """
    try:
        pieces, trainer, normalizer = parse(file.read_bytes())
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise SourceError(
            f"not a SentencePiece model: {error}",
            where=str(file),
            remedy="download it again, or put tokenizer.json beside it",
        ) from None
    if trainer.get(3, 1) != BPE:
        raise SourceError(
            "a SentencePiece model that is not BPE",
            where=str(file),
            remedy="save the tokenizer as tokenizer.json beside it",
        )
    return tokenizer_json.sentencepiece(
        pieces,
        prefix="none" if not normalizer.get(3, 1) else "each" if legacy else "first",
        charsmap=normalizer.get(2, b""),
        collapse=bool(normalizer.get(4, 1)),
    )


def parse(data: bytes) -> tuple[list[Piece], dict[int, Any], dict[int, Any]]:
    """Pieces, and the fields of the trainer's and the normalizer's specification."""
    pieces, trainer, normalizer = [], {}, {}
    for number, value in _fields(data):
        if number == 1:
            piece = dict(_fields(value))
            score = struct.unpack("<f", piece.get(2, bytes(4)))[0]
            pieces.append(Piece(piece[1].decode(), score, PieceType(piece.get(3, 1))))
        elif number == 2:
            trainer = dict(_fields(value))
        elif number == 3:
            normalizer = dict(_fields(value))
    if not pieces:
        raise ValueError("it has no pieces")
    return pieces, trainer, normalizer


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field; what is not an integer comes as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(kind, 0)
        if (not size and kind != 2) or at + size > len(data):
            raise ValueError(f"damaged at byte {at}")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The integer at ``at``, and where the next field begins."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
