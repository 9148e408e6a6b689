"""Compares encoder-decoder models: what each writes for the same inputs, and how fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters import compare as outputs_of
from converters.comparison.answers import ANSWER, Writes, answer_in_turns
from converters.comparison.arrays import Result
from converters.comparison.model import Row
from converters.comparison.subject import Subject
from converters.dataset import Array, Feeds
from converters.metrics import Metric, find_metric
from converters.seq2seq.pairs import Pair, pairs_in
from converters.seq2seq.source import SPEECH_TASK
from edge_sdk.bundle.record import Agreement, Step, TensorSpec
from edge_sdk.errors import InputError
from edge_sdk.runtime.bench import fresh_start
from edge_sdk.runtime.generation.completion import Completion
from edge_sdk.runtime.opening import load
from edge_sdk.runtime.seq2seq.network import ENCODER, LOGITS, TOKENS

# Pairs that are read and written, and most tokens of each output.
EVALUATED, MOST_TOKENS = 64, 128
SAME_TEXT, ERRORS = "same text", "wer to first"


@dataclass(frozen=True)
class _Reads:
    """A variant, for the reader of pairs."""

    name: str
    task: str
    inputs: tuple[TensorSpec, ...]
    tokenizer: Path
    preprocess: tuple[Step, ...]


@dataclass
class _Writer(Writes):
    """A loaded encoder-decoder model, and what it wrote.

    Attributes:
        pairs: The data, by its own tokenizer.
        written: Tokens of its outputs, without beginning and end.
        texts: The same as text.
    """

    pairs: tuple[Pair, ...]
    written: tuple[tuple[int, ...], ...] = ()
    texts: tuple[str, ...] = ()

    def ask(self, turn: int) -> Completion:
        """Inputs in turn."""
        feeds: Mapping[str, Any] = self.pairs[turn % len(self.pairs)].feeds
        return self.model.generate(feeds, max_new_tokens=ANSWER, temperature=0)

    def write(self) -> None:
        """Writes an output for every input."""
        done = []
        for pair in self.pairs:
            feeds: Mapping[str, Any] = pair.feeds
            completion = self.model.generate(feeds, max_new_tokens=MOST_TOKENS, temperature=0)
            done.append((completion.read(), completion.tokens))
        self.texts = tuple(text for text, _ in done)
        self.written = tuple(tokens for _, tokens in done)

    def call(self, number: int, written: Sequence[int]) -> Feeds:
        """An input and an output's tokens, through both graphs."""
        variant = self.subject.variant
        assert variant is not None and variant.record.decoding is not None
        start = variant.record.decoding.start
        return {**self.pairs[number].feeds, TOKENS: np.array([[*start, *written]])}

    def logits(self, written: Sequence[Sequence[int]]) -> list[list[Array]]:
        """Logits of given outputs: teacher forcing."""
        calls = (self.call(number, tokens) for number, tokens in enumerate(written))
        return [[self.model.run(call)[LOGITS]] for call in calls]


def compare(
    subjects: Sequence[Subject],
    data: Path,
    metric: Metric | None,
    threads: int,
    seconds: float,
    say: Callable[[str], None],
) -> Result:
    """Compares encoder-decoder models on the same inputs.

    Args:
        subjects: Variants, the baseline first.
        data: Texts or sounds, as for a conversion.
        metric: What compares texts with the data's targets; by default what is usual.
        threads: Threads of each session.
        seconds: Time per model for answers.
        say: Told what happens.

    Returns:
        The rows, the number of inputs, and notes.

    Raises:
        DataError: The data cannot be read or does not fit.
        InputError: The metric needs targets that the data does not have.
    """
    writers = [_open(subject, data, threads) for subject in subjects]
    first = writers[0]
    targets = [pair.target for pair in first.pairs if pair.target is not None]
    if len(targets) < len(first.pairs):
        if metric is not None:
            raise InputError("needs a target for every input", where="--metric")
        targets = []
    measure = metric or find_metric("wer" if first.subject.task == SPEECH_TASK else "rouge-l")
    for writer in writers:
        say(f"letting {writer.subject.given} write {len(writer.pairs)} outputs")
        writer.write()
    agreements = _agreements(writers)
    say(f"timing {len(writers)} models in turn")
    answer_in_turns(writers, seconds * len(writers))
    rows = []
    for writer, agreement in zip(writers, agreements, strict=True):
        say(f"starting {writer.subject.given} in a fresh process")
        metrics = _against(first, writer)
        if targets:
            metrics = {measure.name: _measured(measure, writer.texts, targets), **metrics}
        rows.append(_row(writer, first, agreement, metrics, threads))
    notes = [
        f"{row.given}: has another vocabulary, so only its texts are compared"
        for row in rows
        if row.agreement is None
    ]
    return tuple(rows), len(first.pairs), tuple(notes)


def _open(subject: Subject, data: Path, threads: int) -> _Writer:
    variant = subject.variant
    if variant is None or subject.writes_with is None:
        raise InputError("is no encoder-decoder model", where=subject.given)
    record = variant.record
    reads = next(graph.inputs for graph in record.graphs if graph.name == ENCODER)
    model = load(subject.target.path, subject.target.profile or "auto", threads=threads)
    known = _Reads(subject.given, record.task, reads, subject.writes_with, record.preprocess)
    pairs = pairs_in(data, known).items[:EVALUATED]
    return _Writer(subject, model, pairs)


def _agreements(writers: Sequence[_Writer]) -> list[Agreement | None]:
    """Of the logits after each token that the baseline wrote; ``None`` for another vocabulary."""
    first = writers[0]
    reference = first.logits(first.written)
    found: list[Agreement | None] = []
    for writer in writers:
        if _vocabulary(writer) != _vocabulary(first):
            found.append(None)
            continue
        logits = reference if writer is first else writer.logits(first.written)
        calls = [tuple({LOGITS: a} for a in sample) for sample in logits]
        expected = [tuple({LOGITS: a} for a in sample) for sample in reference]
        found.append(outputs_of.agreement(expected, calls))
    return found


def _vocabulary(writer: _Writer) -> bytes:
    """What its numbers mean: the tokenizer."""
    file = writer.subject.writes_with
    assert file is not None
    return file.read_bytes()


def _against(first: _Writer, writer: _Writer) -> dict[str, float]:
    """How alike two models' texts are."""
    same = np.mean([a == b for a, b in zip(first.texts, writer.texts, strict=True)])
    errors = _measured(find_metric("wer"), writer.texts, first.texts)
    return {SAME_TEXT: float(same), ERRORS: errors}


def _measured(metric: Metric, texts: Sequence[str], targets: Sequence[str]) -> float:
    found = metric.function([np.array(text) for text in texts], [np.array(t) for t in targets])
    return outputs_of.rounded(float(found))


def _row(
    writer: _Writer,
    first: _Writer,
    agreement: Agreement | None,
    metrics: Mapping[str, float],
    threads: int,
) -> Row:
    subject = writer.subject
    call = writer.call(0, first.written[0] if agreement else writer.written[0])
    return Row(
        given=subject.given,
        what=subject.what,
        engine=subject.engine,
        precision=subject.precision,
        size_bytes=subject.size_bytes,
        speedup=writer.speedup(first),
        metrics=dict(metrics),
        agreement=agreement,
        dialogue=writer.figures(next(iter(writer.pairs[0].feeds.values())).shape[-1]),
        start=fresh_start(subject.target, call, threads),
    )
