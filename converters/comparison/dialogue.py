"""Compares dialogue models: perplexity on text, and how fast each answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.comparison.answers import ANSWER, Writes, answer_in_turns
from converters.comparison.arrays import Result
from converters.comparison.model import Row
from converters.comparison.subject import Subject
from converters.decoder.perplexity import Logits, Scores, score
from converters.decoder.texts import WINDOW, Tokens, open_tokenizer, read_documents, windows
from edge_sdk.bundle.record import Generation, VariantRecord
from edge_sdk.errors import DataError, InputError
from edge_sdk.runtime.bench import fresh_start
from edge_sdk.runtime.generation.completion import Completion
from edge_sdk.runtime.opening import load
from edge_sdk.runtime.tokenizer import TOKENIZER

# As many tokens tell models apart that differ by a percent.
EVALUATED = 8192
# Tokens of the prompt whose answer stands for all.
PROMPT = 128


@dataclass
class _Talker(Writes):
    """A loaded dialogue model."""

    windows: tuple[Tokens, ...]

    @property
    def prompt(self) -> list[int]:
        """The first tokens of the text."""
        room = max(1, self.model.context - ANSWER)
        return [int(t) for t in np.concatenate(self.windows)[: min(PROMPT, room)]]

    def logits(self, window: Tokens) -> Logits:
        """Logits after every token of a window, [tokens, vocab]."""
        return self.model.logits(window.tolist())

    def ask(self, turn: int) -> Completion:
        """The prompt differs from turn to turn, so that none of it is cached."""
        prompt = self.prompt
        shift = turn % len(prompt)
        return self.model.generate(
            [*prompt[shift:], *prompt[:shift]], max_new_tokens=ANSWER, temperature=0, raw=True
        )


def compare(
    subjects: Sequence[Subject],
    data: Path,
    threads: int,
    seconds: float,
    say: Callable[[str], None],
) -> Result:
    """Compares dialogue models on the same text.

    Args:
        subjects: Variants of dialogue models, the baseline first.
        data: A ``.jsonl`` of texts or conversations.
        threads: Threads of each session.
        seconds: Time per model for answers.
        say: Told what happens.

    Returns:
        The rows, the number of windows of text, and notes.

    Raises:
        DataError: The text cannot be read, or there is too little.
    """
    talkers = [_open(subject, data, threads) for subject in subjects]
    scores = []
    for talker in talkers:
        say(f"scoring {talker.subject.given}")
        scores.append(score(talker.windows, talker.logits))
    say(f"timing {len(talkers)} models in turn")
    answer_in_turns(talkers, seconds * len(talkers))
    rows = []
    for talker, scored in zip(talkers, scores, strict=True):
        say(f"starting {talker.subject.given} in a fresh process")
        rows.append(_row(talker, scored, talkers[0], threads))
    apart = len({tuple(map(len, talker.windows)) for talker in talkers}) > 1
    note = "the tokenizers differ: perplexities per token cannot be compared"
    return tuple(rows), len(talkers[0].windows), (note,) if apart else ()


def _open(subject: Subject, data: Path, threads: int) -> _Talker:
    record, tokenizer = _parts(subject)
    documents = read_documents(data, open_tokenizer(tokenizer, subject.given), record)
    model = load(subject.target.path, subject.target.profile or "auto", threads=threads)
    found = windows(documents, min(WINDOW, model.context), EVALUATED)
    if not found:
        raise DataError("there is no text in it", where=str(data))
    return _Talker(subject, model, found)


def _parts(subject: Subject) -> tuple[Generation, bytes]:
    variant = subject.variant
    record: VariantRecord | None = variant.record if variant else None
    if variant is None or record is None or record.generation is None:
        raise InputError("is no dialogue model", where=subject.given)
    blob = next((file.blob for file in record.files if file.path == TOKENIZER), None)
    if blob is None:
        raise InputError("the variant has no tokenizer", where=subject.given)
    return record.generation, variant.blobs.read(blob, blob.size)


def _row(talker: _Talker, scored: Scores, baseline: _Talker, threads: int) -> Row:
    subject, prompt = talker.subject, talker.prompt
    return Row(
        given=subject.given,
        what=subject.what,
        engine=subject.engine,
        precision=subject.precision,
        size_bytes=subject.size_bytes,
        speedup=talker.speedup(baseline),
        metrics={"perplexity": float(f"{scored.perplexity:.6g}")},
        dialogue=talker.figures(len(prompt)),
        start=fresh_start(subject.target, {"input_ids": np.array([prompt])}, threads),
    )
