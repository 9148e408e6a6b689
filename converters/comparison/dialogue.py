"""Compares dialogue models: perplexity on text, and how fast each answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.comparison.arrays import Result
from converters.comparison.model import Dialogue, Row
from converters.comparison.subject import Subject
from converters.decoder.perplexity import Logits, Scores, score
from converters.decoder.texts import WINDOW, Tokens, open_tokenizer, read_documents, windows
from edge_sdk.bundle.record import Generation, VariantRecord
from edge_sdk.errors import DataError, InputError
from edge_sdk.runtime.bench import fresh_start
from edge_sdk.runtime.model import Model
from edge_sdk.runtime.opening import load
from edge_sdk.runtime.tokenizer import TOKENIZER

# As many tokens tell models apart that differ by a percent.
EVALUATED = 8192
# The answer that stands for all: this long a prompt, this many new tokens.
PROMPT, ANSWER = 128, 32
MIN_TURNS = 3


@dataclass
class _Talker:
    """A loaded model with the times of its answers."""

    subject: Subject
    model: Model
    windows: tuple[Tokens, ...]
    ttft_ms: list[float] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)

    @property
    def prompt(self) -> list[int]:
        """The first tokens of the text."""
        room = max(1, self.model.context - ANSWER)
        return [int(t) for t in np.concatenate(self.windows)[: min(PROMPT, room)]]

    def logits(self, window: Tokens) -> Logits:
        """Logits after every token of a window, [tokens, vocab]."""
        return self.model.logits(window.tolist())

    def turn(self) -> None:
        """Answers once; the prompt differs from turn to turn, so that none of it is cached."""
        prompt = self.prompt
        shift = len(self.ttft_ms) % len(prompt)
        completion = self.model.generate(
            [*prompt[shift:], *prompt[:shift]], max_new_tokens=ANSWER, temperature=0, raw=True
        )
        completion.read()
        stats = completion.stats
        if stats.ttft_ms is None:
            return
        self.ttft_ms.append(stats.ttft_ms)
        self.step_ms.append(1e3 / stats.tokens_per_second if stats.tokens_per_second else 0.0)

    @property
    def answer_ms(self) -> NDArray[np.float64]:
        """Time of a whole answer, turn by turn."""
        first, step = (np.asarray(ms, np.float64) for ms in (self.ttft_ms, self.step_ms))
        return first + ANSWER * step


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
    _answer_in_turns(talkers, seconds * len(talkers))
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


def _answer_in_turns(talkers: Sequence[_Talker], seconds: float) -> None:
    deadline = time.perf_counter() + seconds
    number = 0
    while number < MIN_TURNS or time.perf_counter() < deadline:
        for talker in talkers if number % 2 else reversed(talkers):
            talker.turn()
        number += 1


def _row(talker: _Talker, scored: Scores, baseline: _Talker, threads: int) -> Row:
    subject, prompt = talker.subject, talker.prompt
    step = float(np.median(talker.step_ms))
    return Row(
        given=subject.given,
        what=subject.what,
        engine=subject.engine,
        precision=subject.precision,
        size_bytes=subject.size_bytes,
        speedup=round(float(np.median(baseline.answer_ms / talker.answer_ms)), 3),
        metrics={"perplexity": float(f"{scored.perplexity:.6g}")},
        dialogue=Dialogue(
            ttft_ms=float(np.median(talker.ttft_ms)),
            tokens_per_second=1e3 / step if step else 0.0,
            prompt_tokens=len(prompt),
        ),
        start=fresh_start(subject.target, {"input_ids": np.array([prompt])}, threads),
    )
