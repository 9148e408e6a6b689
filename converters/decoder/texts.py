"""Text to calibrate and to evaluate a decoder on: documents, cut into windows of tokens.

A document is a line of a ``.jsonl`` file: ``{"text": …}``, or ``{"messages": …}``
and ``{"prompt": …, "completion": …}``, which go through the chat template. A
window begins where its document does, as the model meets it in use; longer
documents are cut. Every token counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from converters.data import MIN_SPLIT
from converters.decoder.source import DecoderSource
from edge_sdk.bundle.record import Generation
from edge_sdk.errors import DataError, SourceError
from edge_sdk.runtime.generation.chat_template import Message, render

Tokens = NDArray[np.int64]

WINDOW = 256
# Fewer predicted tokens than this tell no perplexity.
MIN_TOKENS = 64


@dataclass(frozen=True)
class Texts:
    """Windows of tokens, divided in two.

    Attributes:
        calibration: int64 [tokens] each; what scales and rounding are fitted to.
        evaluation: What perplexity is measured on.
        origin: ``user`` or ``generated``.
        digest: ``sha256:…`` of all documents' tokens.
    """

    calibration: tuple[Tokens, ...]
    evaluation: tuple[Tokens, ...]
    origin: str
    digest: str


class Turn(msgspec.Struct, frozen=True):
    """One message of a dialogue."""

    role: str
    content: str


class Line(msgspec.Struct, frozen=True):
    """One line of the file; other fields are ignored."""

    text: str | None = None
    messages: tuple[Turn, ...] | None = None
    prompt: str | None = None
    completion: str | None = None


def read_texts(source: DecoderSource, path: Path, calibration: int, evaluation: int) -> Texts:
    """Reads, tokenizes, divides and cuts the documents of a ``.jsonl`` file.

    Args:
        source: Whose tokenizer and chat template to use.
        path: The file.
        calibration: Most tokens to calibrate on.
        evaluation: Most tokens to evaluate on.

    Raises:
        DataError: The file cannot be read, a line is wrong, or there is too little text.
    """
    tokenizer = open_tokenizer(source.tokenizer, str(source.path))
    documents = read_documents(path, tokenizer, source.generation)
    texts = divide(documents, "user", source.generation.context, calibration, evaluation)
    found = sum(len(window) - 1 for window in texts.evaluation)
    if found < MIN_TOKENS:
        raise DataError(
            f"{found} tokens are left to evaluate on, at least {MIN_TOKENS} are needed",
            where=str(path),
            remedy="give more text; a few thousand tokens tell candidates apart",
        )
    return texts


def read_documents(path: Path, tokenizer: Any, generation: Generation) -> list[Tokens]:
    """The documents of a ``.jsonl`` file in a model's tokens.

    Args:
        path: The file.
        tokenizer: The model's, as :func:`open_tokenizer` gives it.
        generation: The model's chat template and first token.

    Raises:
        DataError: The file cannot be read, or a line is wrong.
    """
    if path.suffix != ".jsonl":
        raise DataError(
            "a dialogue model is calibrated and evaluated on text",
            where=str(path),
            remedy='give a .jsonl file with {"text": "…"} or {"messages": […]} per line',
        )
    begin = _begin(generation)
    documents = []
    for number, line in enumerate(_lines(path), start=1):
        text, is_chat = _text(line, generation, f"{path}, document {number}")
        # A chat template writes its own beginning.
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        documents.append(np.array(ids if is_chat else [*begin, *ids], np.int64))
    return documents


def divide(
    documents: Sequence[Tokens], origin: str, context: int, calibration: int, evaluation: int
) -> Texts:
    """Deals documents to calibration and evaluation, and cuts them into windows.

    They are dealt by a fixed shuffle, because files are often sorted; of fewer than 8
    documents, the first halves calibrate and the second halves evaluate.

    Args:
        documents: Tokens of each.
        origin: Where they come from.
        context: Longest window the model takes.
        calibration: Most tokens to calibrate on.
        evaluation: Most tokens to evaluate on.
    """
    digest = hashlib.sha256()
    for document in documents:
        digest.update(f"{len(document)}\n".encode() + document.astype("<i8").tobytes())
    if len(documents) < MIN_SPLIT:
        first = [document[: len(document) // 2] for document in documents]
        second = [document[len(document) // 2 :] for document in documents]
    else:
        order = np.random.default_rng(0).permutation(len(documents)).tolist()
        half = len(order) // 2
        first = [documents[i] for i in order[:half]]
        second = [documents[i] for i in order[half:]]
    length = min(WINDOW, context)
    return Texts(
        calibration=windows(first, length, calibration),
        evaluation=windows(second, length, evaluation),
        origin=origin,
        digest=f"sha256:{digest.hexdigest()}",
    )


def open_tokenizer(content: bytes, where: str) -> Any:
    """A tokenizer without truncation or padding.

    Args:
        content: Of its ``tokenizer.json``.
        where: What it belongs to, for errors.

    Raises:
        SourceError: The tokenizers library cannot read it.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(content)
    except ValueError as error:
        raise SourceError(f"not a readable tokenizer: {error}", where=where) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _begin(generation: Generation) -> list[int]:
    return [generation.bos] if generation.add_bos and generation.bos is not None else []


def _lines(path: Path) -> list[Line]:
    try:
        rows = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error
    lines = []
    for number, row in enumerate(rows, start=1):
        if row.strip():
            try:
                lines.append(msgspec.json.decode(row, type=Line))
            except msgspec.DecodeError as error:
                raise _bad_line(str(error), f"{path}, line {number}") from error
    return lines


def _text(line: Line, generation: Generation, where: str) -> tuple[str, bool]:
    """A line's text, and whether a chat template wrote it."""
    if line.text is not None:
        return line.text, False
    turns = line.messages
    if turns is None and line.prompt is not None and line.completion is not None:
        turns = (Turn("user", line.prompt), Turn("assistant", line.completion))
    if turns is None:
        raise _bad_line("has neither text, nor messages, nor prompt and completion", where)
    messages = [Message(turn.role, turn.content) for turn in turns]
    return render(generation, messages, answer=False), True


def _bad_line(message: str, where: str) -> DataError:
    return DataError(
        message,
        where=where,
        remedy='write one JSON object per line: {"text": "…"}, {"messages": [{"role": "…", '
        '"content": "…"}]} or {"prompt": "…", "completion": "…"}',
    )


def windows(documents: Sequence[Tokens], length: int, limit: int) -> tuple[Tokens, ...]:
    """Pieces of at most ``length`` tokens, ``limit`` in all; one token alone predicts nothing."""
    found: list[Tokens] = []
    for document in documents:
        for start in range(0, len(document), length):
            window = document[start : start + length]
            if limit < 2:
                return tuple(found)
            if len(window) > 1:
                found.append(window[:limit])
                limit -= len(found[-1])
    return tuple(found)
