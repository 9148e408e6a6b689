"""Several streams over one session, and a long prompt that comes in between."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import edge_sdk
from benchmarks.llm import assets
from benchmarks.llm.contest import prompt_of
from benchmarks.llm.model import SHAPES
from benchmarks.result import Outcome, Row

if TYPE_CHECKING:
    from edge_sdk.runtime.generation.completion import Completion

STREAMS, THREADS, CONTEXT = 4, 2, 1024
PROMPT, ANSWER, LONG = 32, 64, 512
BLOCKS = (32, 256)


@dataclass(frozen=True)
class Together:
    """What running streams kept while a long prompt was computed.

    Attributes:
        tokens_per_second: Of each running stream meanwhile.
        prompt_seconds: How long the prompt took.
    """

    tokens_per_second: float
    prompt_seconds: float


def run(quick: bool) -> Outcome:
    """One stream and four in turn; then three beside a long prompt."""
    shape = "135m" if quick else "360m"
    rows: list[Row] = []
    figures: dict[str, float] = {}
    for block in BLOCKS:
        bundle = assets.bundle(shape, f"int4-b{block}")
        model = edge_sdk.load(bundle, threads=THREADS, context=CONTEXT, streams=STREAMS)
        rounds = 1 if quick else 6
        one, four = alternate(model, SHAPES[shape].vocab, rounds)
        beside = [
            beside_prompt(model, SHAPES[shape].vocab, 10_000 + number) for number in range(rounds)
        ]
        kept = median(found.tokens_per_second for found in beside)
        rows += [
            Row(
                f"SmolLM2-{shape.upper()} shape, int4-b{block}, {STREAMS} streams against one, "
                f"{THREADS} threads",
                f"{max(four):.0f} tok/s together, {max(four) / max(one):.2f}×",
            ),
            Row(
                f"the same, {STREAMS - 1} streams while a prompt of {LONG} is computed",
                f"{kept:.0f} tok/s each",
            ),
        ]
        figures |= {
            f"b{block}_one_tokens_per_second_best": round(max(one), 1),
            f"b{block}_one_tokens_per_second_median": round(median(one), 1),
            f"b{block}_four_tokens_per_second_best": round(max(four), 1),
            f"b{block}_four_tokens_per_second_median": round(median(four), 1),
            f"b{block}_beside_prompt_tokens_per_second": round(kept, 1),
            f"b{block}_prompt_beside_seconds": round(median(b.prompt_seconds for b in beside), 2),
        }
    return Outcome(rows=tuple(rows), figures=figures)


def alternate(
    model: edge_sdk.Model, vocab: int, rounds: int
) -> tuple[Sequence[float], Sequence[float]]:
    """Decoding speed of one stream and of all together, in turn."""
    one, four = [], []
    for number in range(rounds + 1):
        one.append(decode(model, vocab, 1, 100 * number))
        four.append(decode(model, vocab, STREAMS, 100 * number + 50))
    return one[1:], four[1:]


def decode(model: edge_sdk.Model, vocab: int, streams: int, number: int) -> float:
    """Tokens per second of all streams together, counted once all prompts are in."""
    running = [_start(model, vocab, PROMPT, number + index) for index in range(streams)]
    _until_first(running)
    before, started = _tokens(running), time.perf_counter()
    while all(completion.finish_reason is None for completion in running):
        for completion in running:
            next(completion, None)
    found = (_tokens(running) - before) / (time.perf_counter() - started)
    _close(running)
    return found


def beside_prompt(model: edge_sdk.Model, vocab: int, number: int) -> Together:
    """Speed of running streams from when a long prompt comes until its first token."""
    running = [_start(model, vocab, PROMPT, number + index, LONG) for index in range(STREAMS - 1)]
    _until_first(running)
    long = _start(model, vocab, LONG, number + STREAMS)
    before, started = _tokens(running), time.perf_counter()
    while not long.tokens:
        for completion in running:
            next(completion, None)
    seconds = time.perf_counter() - started
    found = (_tokens(running) - before) / seconds / len(running)
    _close([*running, long])
    return Together(found, seconds)


def _start(
    model: edge_sdk.Model, vocab: int, prompt: int, number: int, answer: int = ANSWER
) -> Completion:
    return model.generate(prompt_of(prompt, vocab, number), max_new_tokens=answer, temperature=0.0)


def _until_first(running: Sequence[Completion]) -> None:
    for completion in running:
        while not completion.tokens:
            next(completion)


def _tokens(running: Sequence[Completion]) -> int:
    return sum(len(completion.tokens) for completion in running)


def _close(running: Sequence[Completion]) -> None:
    for completion in running:
        completion.close()
