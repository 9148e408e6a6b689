"""Reads ``.jsonl`` of texts: one call per line, tokenised exactly as the runtime does it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from converters.dataset import Array, Feeds
from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import DataError
from edge_sdk.runtime.steps import Encoding, Tokenize
from edge_sdk.runtime.text import PairEncoder, TextEncoder

DEFAULT_MAX_LENGTH = 512


class Line(msgspec.Struct, frozen=True):
    """One line of the file: a text, a pair of texts, or a question and its context.

    Other fields are ignored.
    """

    text: str | tuple[str, str] | None = None
    question: str | None = None
    context: str | None = None
    label: int | float | str | None = None


class _Truncation(msgspec.Struct):
    max_length: int


class _TokenizerFile(msgspec.Struct):
    truncation: _Truncation | None = None


def read_jsonl(
    path: Path,
    inputs: Sequence[TensorSpec],
    tokenizer: Path | None,
    max_length: int | None = None,
    step: Tokenize | None = None,
) -> tuple[list[tuple[Feeds, ...]], list[Array]]:
    """Reads texts and, where every line has one, their labels.

    Args:
        path: The file: ``{"text": …}`` or ``{"text": …, "label": …}`` per line, where a text
            may be a pair ``["…", "…"]``; or ``{"question": …, "context": …}``.
        inputs: The model's inputs; token ids, mask and types are told by name.
        tokenizer: ``tokenizer.json``.
        max_length: Tokens kept of each text; the tokenizer's own limit, else 512, when ``None``.
        step: How the model takes text, where that is known; limit and inputs are its then.

    Returns:
        One sample of one call per text (per window of a context), each of its own length
        (padded only where the graph has a fixed one), and the labels.

    Raises:
        DataError: A bad line, or a model that does not take tokens.
    """
    if tokenizer is None:
        raise DataError(
            "text needs the model's tokenizer",
            where=str(path),
            remedy="put tokenizer.json beside the model, or give the data as .npz",
        )
    lines = read_lines(path)
    names = step.inputs if step else token_inputs(inputs)
    fixed = _fixed_length(inputs)
    data = tokenizer.read_bytes()
    own = msgspec.json.decode(data, type=_TokenizerFile).truncation
    limit = max_length or (step.max_length if step else own.max_length if own else None)
    longest = min(limit or DEFAULT_MAX_LENGTH, fixed or limit or DEFAULT_MAX_LENGTH)
    stride = min(step.stride if step else 0, longest // 2)
    texts = TextEncoder(data, longest, str(tokenizer))
    pairs = PairEncoder(data, longest, str(tokenizer), stride)
    dtypes = {spec.name: np.dtype(spec.dtype) for spec in inputs}
    samples: list[tuple[Feeds, ...]] = []
    for line in lines:
        if line.text is None:
            batches = pairs.batches(line.question or "", line.context or "", 1, fixed)
        else:
            batches = texts.batches([line.text], 1, fixed)
        for batch in batches:
            arrays = {name: batch.arrays[kind].astype(dtypes[name]) for name, kind in names.items()}
            samples.append((arrays,))
    return samples, [np.asarray(line.label) for line in lines if line.label is not None]


def read_lines(path: Path) -> list[Line]:
    """Parses the file; blank lines are skipped.

    Raises:
        DataError: The file cannot be read, or a line is wrong; names the line.
    """
    lines = []
    try:
        rows = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error
    for number, row in enumerate(rows, start=1):
        if row.strip():
            try:
                lines.append(_checked(msgspec.json.decode(row, type=Line)))
            except msgspec.DecodeError as error:
                raise DataError(
                    str(error),
                    where=f"{path}, line {number}",
                    remedy='write one JSON object per line: {"text": "…", "label": …}, or '
                    '{"question": "…", "context": "…"}',
                ) from error
    return lines


def _checked(line: Line) -> Line:
    if line.text is None and not (line.question and line.context):
        raise msgspec.ValidationError("has neither a text nor a question and its context")
    return line


def token_inputs(inputs: Sequence[TensorSpec]) -> dict[str, Encoding]:
    """Which array of an encoding each integer input of a text model takes, by its name.

    Raises:
        DataError: There are no token ids, or inputs that text cannot fill.
    """
    found: dict[str, Encoding] = {}
    for spec in inputs:
        name = spec.name.lower()
        if not spec.dtype.startswith(("int", "uint")) or spec.shape is None or len(spec.shape) != 2:
            continue
        if "mask" in name:
            found[spec.name] = "mask"
        elif "type" in name or "segment" in name:
            found[spec.name] = "types"
        elif "position" not in name:
            found[spec.name] = "ids"
    unfilled = [spec.name for spec in inputs if spec.required and spec.name not in found]
    if unfilled or list(found.values()).count("ids") != 1:
        raise DataError(
            f"text does not give the inputs {unfilled or [spec.name for spec in inputs]}",
            remedy="give the data as .npz with one array per input",
        )
    return found


def _fixed_length(inputs: Sequence[TensorSpec]) -> int | None:
    lengths = {spec.shape[1] for spec in inputs if spec.shape and len(spec.shape) == 2}
    fixed = [length for length in lengths if isinstance(length, int)]
    return min(fixed, default=None)
