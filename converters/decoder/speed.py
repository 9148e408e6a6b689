"""How fast decoders answer: candidates take turns at the same prompt."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from converters.decoder.candidates import Spec
from converters.decoder.workshop import DecoderWorkshop
from converters.measure_process import Footprint
from edge_sdk.bundle.record import Generation
from edge_sdk.errors import EngineError
from edge_sdk.runtime.generation.decoder import Decoder
from edge_sdk.runtime.generation.timing import ANSWER, TIMED, turn

MIN_ROUNDS, MAX_ROUNDS = 3, 40
SECONDS = 1.5  # per candidate


@dataclass(frozen=True)
class Speed:
    """One candidate's speed; medians over all rounds.

    Attributes:
        ttft_ms: Time to the first token after a prompt of :data:`PROMPT` tokens.
        step_ms: Time per further token.
        speedup: Of the first candidate's whole answer over this one's, round by round.
        peak_rss_bytes: Of a fresh process that loads it plainly and answers.
    """

    ttft_ms: float
    step_ms: float
    speedup: float
    peak_rss_bytes: int = 0

    @property
    def answer_ms(self) -> float:
        """Prompt and answer together."""
        return self.ttft_ms + ANSWER * self.step_ms


def race(decoders: Mapping[str, Decoder], prompt: Sequence[int]) -> dict[str, Speed]:
    """Times decoders in turn, so that what disturbs the machine disturbs all of them.

    Args:
        decoders: Name -> decoder with room for prompt and answer, the baseline first.
        prompt: Its tokens.

    Raises:
        EngineError: A decoder failed.
    """
    names = list(decoders)
    for decoder in decoders.values():
        turn(decoder, prompt)
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    deadline = time.perf_counter() + SECONDS * len(names)
    for number in range(MAX_ROUNDS):
        if number >= MIN_ROUNDS and time.perf_counter() > deadline:
            break
        first = number % len(names)
        for name in names[first:] + names[:first]:
            turns[name].append(turn(decoders[name], prompt))
    times = {name: np.array(taken) * 1e3 for name, taken in turns.items()}
    whole = {name: found @ [1, ANSWER] for name, found in times.items()}
    return {
        name: Speed(
            ttft_ms=float(np.median(times[name][:, 0])),
            step_ms=float(np.median(times[name][:, 1])),
            speedup=float(np.median(whole[names[0]] / whole[name])),
        )
        for name in names
    }


def footprint(
    graph: Path, generation: Generation, prompt: Sequence[int], threads: int
) -> Footprint:
    """Loads a decoder plainly in a fresh process, lets it answer, and asks for its memory.

    Args:
        graph: The graph file; external data beside it.
        generation: The decoder's shape.
        prompt: Tokens of the prompt.
        threads: Intra-op threads.

    Raises:
        EngineError: The process failed; says what it printed last.
    """
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    question = msgspec.json.encode((str(graph), generation, list(prompt), TIMED, threads))
    command = [sys.executable, "-m", "converters.decoder.measure_process"]
    done = subprocess.run(command, input=question, capture_output=True, env=environment)
    if done.returncode != 0:
        last = (done.stderr.decode().strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise EngineError(f"measuring memory in a fresh process failed: {last}", where=str(graph))
    return msgspec.json.decode(done.stdout, type=Footprint)


class Stopwatch:
    """Times candidates' formats and remembers them: how weights were rounded changes no speed.

    Args:
        workshop: Where candidates are built.
        baseline: What speedups are ratios to; the first candidate timed when ``None``.
        prompt: Tokens of the prompt.

    Attributes:
        reference: What speedups are ratios to, once something was timed.
    """

    def __init__(
        self, workshop: DecoderWorkshop, baseline: Spec | None, prompt: Sequence[int]
    ) -> None:
        self.workshop = workshop
        self.baseline = baseline
        self.prompt = prompt
        self.reference = baseline
        self._known: dict[str, Speed] = {}

    def needs(self, spec: Spec) -> bool:
        """Whether a candidate's files will be opened: not timed yet, or what others race with."""
        return spec == self.reference or format_of(spec) not in self._known

    def time(self, specs: Sequence[Spec]) -> list[Speed]:
        """The speed of each candidate, timed in turn with the baseline where it is not known.

        Args:
            specs: What to time; the files of candidates that were timed are not opened again.
        """
        fresh = {format_of(spec): spec for spec in specs if format_of(spec) not in self._known}
        if fresh:
            self.reference = self.reference or next(iter(fresh.values()))
            raced = self._race({format_of(self.reference): self.reference} | fresh)
            for name, spec in fresh.items():
                self._known[name] = replace(raced[name], peak_rss_bytes=self._peak(spec))
                if not self.needs(spec):
                    self.workshop.release(spec)
        return [self._known[format_of(spec)] for spec in specs]

    def _race(self, contest: Mapping[str, Spec]) -> dict[str, Speed]:
        capacity = len(self.prompt) + TIMED
        decoders = {
            # One thread: idle threads of several sessions spin in each other's way.
            name: self.workshop.decoder(self.workshop.path(spec), capacity, threads=1)
            for name, spec in contest.items()
        }
        return race(decoders, self.prompt)

    def _peak(self, spec: Spec) -> int:
        generation = self.workshop.source.generation
        return footprint(self.workshop.path(spec), generation, self.prompt, 1).peak_rss_bytes


def format_of(spec: Spec) -> str:
    """What a candidate's speed depends on: everything but how its weights were rounded."""
    return repr((spec.plan, spec.half))
