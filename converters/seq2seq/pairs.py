"""Inputs with what a model shall write for them, read from the user's data or generated.

Text: a ``.jsonl`` of ``{"text": …, "target": …}``. Sound: a ``.jsonl`` of ``{"audio": FILE,
"target": …}``, or a folder of ``.wav`` files, each with its transcript in a ``.txt`` of the same
name. Either: ``.npz`` of the encoder's inputs, with the targets as ``labels``. Where there is
no target, what the source writes is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from converters.data import LABELS, content_digest, load_data
from converters.dataset import Array, Feeds
from converters.sampling import dataset_for
from converters.seq2seq.source import SPEECH_TASK, Seq2SeqSource
from edge_sdk.bundle.record import Step, TensorSpec
from edge_sdk.errors import DataError, SourceError
from edge_sdk.runtime.media.sound import clips
from edge_sdk.runtime.media.spectrogram import prepare_spectrogram
from edge_sdk.runtime.steps import Spectrogram, Tokenize, find_step, parse_steps

# Generated inputs beyond these tell nothing new.
GENERATED = 16


@dataclass(frozen=True)
class Pair:
    """One input, and its target.

    Attributes:
        feeds: The encoder's inputs, of batch 1.
        target: What shall be written; ``None`` where the data does not say.
    """

    feeds: Feeds
    target: str | None = None


@dataclass(frozen=True)
class Pairs:
    """All pairs of one conversion.

    Attributes:
        items: The pairs.
        origin: ``user`` or ``generated``.
        digest: ``sha256:…`` of the content.
    """

    items: tuple[Pair, ...]
    origin: str
    digest: str

    @property
    def have_targets(self) -> bool:
        """Whether every pair has one."""
        return all(pair.target is not None for pair in self.items)


class _Line(msgspec.Struct, frozen=True):
    """One line of a ``.jsonl``; other fields are ignored."""

    text: str | None = None
    audio: str | None = None
    target: str | None = None


class Reads(Protocol):
    """What a reader of pairs knows of a model, whether it is converted or not."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def task(self) -> str:
        """Whether it reads text or sound."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The encoder's inputs."""

    @property
    def tokenizer(self) -> Path:
        """Its ``tokenizer.json``."""

    @property
    def preprocess(self) -> tuple[Step, ...]:
        """Steps before the encoder."""


def read_pairs(source: Seq2SeqSource, data: Path | None) -> Pairs:
    """The user's data, or inputs generated for the encoder.

    Raises:
        DataError: It cannot be read or does not fit the model.
    """
    if data is None:
        found = dataset_for(source.encoder, None)
        items = tuple(Pair(sample[0]) for sample in found.samples[:GENERATED])
        return Pairs(items, found.origin, found.digest)
    return pairs_in(data, source)


def pairs_in(data: Path, source: Reads) -> Pairs:
    """The user's data.

    Raises:
        DataError: It cannot be read or does not fit the model.
    """
    if not data.exists():
        raise DataError("no such file or folder", where=str(data))
    if data.suffix == ".jsonl":
        items = tuple(_from_lines(source, data))
    elif data.is_dir() and any(data.glob("*.wav")):
        items = tuple(_from_folder(source, data))
    else:
        items = tuple(_from_arrays(source, data))
    if not items:
        raise DataError("there are no samples in it", where=str(data))
    labels = np.array([pair.target or "" for pair in items])
    return Pairs(items, "user", content_digest([(pair.feeds,) for pair in items], labels))


def open_tokenizer(source: Reads) -> Any:
    """The source's tokenizer, which cuts what is longer than the encoder reads.

    Raises:
        SourceError: The tokenizers library cannot read it.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(source.tokenizer.read_bytes())
    except ValueError as error:
        where = str(source.tokenizer)
        raise SourceError(f"not a readable tokenizer: {error}", where=where) from error
    tokenizer.no_padding()
    step = find_step(parse_steps(source.preprocess), Tokenize)
    if step is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(step.max_length)
    return tokenizer


def _from_lines(source: Reads, path: Path) -> Iterable[Pair]:
    reads_sound = source.task == SPEECH_TASK
    wanted = "audio" if reads_sound else "text"
    tokenizer = open_tokenizer(source)
    for number, line in enumerate(_lines(path), start=1):
        given = getattr(line, wanted)
        if given is None:
            raise DataError(
                f"has no {wanted!r}",
                where=f"{path}, sample {number}",
                remedy=f'write one JSON object per line: {{"{wanted}": "…", "target": "…"}}',
            )
        if reads_sound:
            yield Pair(_heard(source, path.parent / given), line.target)
        else:
            yield Pair(_tokens(source, tokenizer.encode(given)), line.target)


def _lines(path: Path) -> list[_Line]:
    try:
        rows = path.read_text(encoding="utf-8").split("\n")
        return [msgspec.json.decode(row, type=_Line) for row in rows if row.strip()]
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error


def _from_folder(source: Reads, folder: Path) -> Iterable[Pair]:
    for file in sorted(folder.glob("*.wav")):
        said = file.with_suffix(".txt")
        target = said.read_text(encoding="utf-8").strip() if said.is_file() else None
        yield Pair(_heard(source, file), target)


def _from_arrays(source: Reads, path: Path) -> Iterable[Pair]:
    found = load_data(path, source.inputs)
    labels = [None] * len(found) if found.labels is None else found.labels.tolist()
    for sample, label in zip(found.samples, labels, strict=True):
        if label is not None and not isinstance(label, str):
            raise DataError("a target is a text", where=f"{path}, {LABELS}")
        yield Pair(sample[0], None if label is None else str(label))


def _tokens(source: Reads, encoding: Any) -> dict[str, Array]:
    step = find_step(parse_steps(source.preprocess), Tokenize)
    if step is None:
        raise DataError("this model's record does not say how it reads text", where=source.name)
    arrays = {"ids": encoding.ids, "mask": encoding.attention_mask, "types": encoding.type_ids}
    return {name: np.array([arrays[kind]], np.int64) for name, kind in step.inputs.items()}


def _heard(source: Reads, file: Path) -> Mapping[str, Array]:
    step = find_step(parse_steps(source.preprocess), Spectrogram)
    if step is None:
        raise DataError(
            "nothing says how this model hears",
            where=str(file),
            remedy="give the features as .npz, or preprocessor_config.json beside the model",
        )
    (samples,) = clips(file, step.rate)
    return prepare_spectrogram(samples, step)
