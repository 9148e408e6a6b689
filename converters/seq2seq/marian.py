"""Marian's tokenizer as one ``tokenizer.json``.

Marian keeps two SentencePiece models, one for the text that is read and one for the text that
is written, and one ``vocab.json`` with the pieces of both. Texts are cut by the first model's
scores; ids are turned into text by their pieces alone, so the second model is not needed.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from converters.decoder.checkpoint import read_json
from converters.decoder.sentencepiece_model import parse
from converters.decoder.tokenizer_json import Json, Piece, added_token, checked, spaces
from edge_sdk.errors import SourceError

SOURCE, VOCABULARY = "source.spm", "vocab.json"
END, UNKNOWN, PADDING = "</s>", "<unk>", "<pad>"
UNIGRAM = 1
# Of pieces that only the written side has: less than any way to spell a word without them.
FOREIGN = -100.0


def is_marian(folder: Path) -> bool:
    """Whether a folder holds such a tokenizer."""
    return (folder / SOURCE).is_file() and (folder / VOCABULARY).is_file()


def read_marian(folder: Path) -> bytes:
    """The content of ``tokenizer.json``.

    Raises:
        SourceError: A file is damaged, or holds another kind of model than a unigram one.
    """
    file = folder / SOURCE
    try:
        pieces, trainer, normalizer = parse(file.read_bytes())
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise SourceError(
            f"not a SentencePiece model: {error}", where=str(file), remedy="download it again"
        ) from None
    vocabulary = read_json(folder / VOCABULARY)
    if trainer.get(3, UNIGRAM) != UNIGRAM or END not in vocabulary or UNKNOWN not in vocabulary:
        raise SourceError(
            f"not a unigram model with {END} and {UNKNOWN}",
            where=str(file),
            remedy="save the tokenizer as tokenizer.json beside it",
        )
    content = tokenizer(
        pieces,
        vocabulary,
        charsmap=normalizer.get(2, b""),
        collapse=bool(normalizer.get(4, 1)),
    )
    return checked(content, str(file))


def tokenizer(
    pieces: list[Piece], vocabulary: Mapping[str, int], *, charsmap: bytes, collapse: bool
) -> Json:
    """A unigram tokenizer over the joint vocabulary.

    Args:
        pieces: What texts are cut into.
        vocabulary: Piece -> id.
        charsmap: SentencePiece's compiled normalization, empty for none.
        collapse: Several spaces become one, and those at the ends are dropped.
    """
    scores = {piece.text: piece.score for piece in pieces}
    rows = [[f"<unused {i}>", FOREIGN] for i in range(max(vocabulary.values()) + 1)]
    for text, number in vocabulary.items():
        rows[number] = [text, scores.get(text, FOREIGN)]
    # ">>fra<<" at the beginning says the language to write.
    special = [t for t in vocabulary if t in (END, UNKNOWN, PADDING) or t.startswith(">>")]
    end = {"SpecialToken": {"id": END, "type_id": 0}}
    blanks = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "always",
        "split": True,
    }
    return {
        "version": "1.0",
        "added_tokens": [added_token(vocabulary[text], text) for text in special],
        "normalizer": spaces("first", charsmap, collapse),
        "pre_tokenizer": blanks,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, end],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
                end,
            ],
            "special_tokens": {END: {"id": END, "ids": [vocabulary[END]], "tokens": [END]}},
        },
        "decoder": blanks,
        "model": {"type": "Unigram", "unk_id": vocabulary[UNKNOWN], "vocab": rows},
    }
