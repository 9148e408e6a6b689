"""The process side of a contest: one engine, asked line by line. Standard library only.

A worker is started with its settings as JSON, prints :class:`Opened` when its
model is loaded, then answers each request line with one :class:`Turn` line.
Peers run in environments where nothing of this repository is installed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Turn:
    """One prompt answered greedily.

    Attributes:
        ttft_ms: From the prompt's token ids to the first new token.
        decode_seconds: From the first to the last new token.
        tokens: The new tokens.
    """

    ttft_ms: float
    decode_seconds: float
    tokens: list[int]

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed, without the first token; 0 where there was only that."""
        return (len(self.tokens) - 1) / self.decode_seconds if self.decode_seconds else 0.0


@dataclass(frozen=True)
class Opened:
    """A worker is ready.

    Attributes:
        open_ms: From the first statement of the program, imports included, to a loaded model.
    """

    open_ms: float


class Runner(Protocol):
    """One engine with a model loaded."""

    def answer(self, prompt: list[int], new_tokens: int) -> Iterator[int]:
        """Greedy tokens after a prompt, as they come; what was before is forgotten."""


def turn(runner: Runner, prompt: list[int], new_tokens: int) -> Turn:
    """Times one prompt and its answer.

    Raises:
        RuntimeError: The answer ended early: a random model has drawn its end token.
    """
    started = time.perf_counter()
    answer = runner.answer(prompt, new_tokens)
    tokens = [next(answer)]
    first = time.perf_counter()
    tokens += answer
    last = time.perf_counter()
    if len(tokens) != new_tokens:
        raise RuntimeError(f"{len(tokens)} tokens instead of {new_tokens}: use another prompt")
    return Turn((first - started) * 1e3, last - first, tokens)


def serve(open_runner: Callable[[dict[str, Any]], Runner]) -> None:
    """Opens with the settings of the command line, then answers until the input ends."""
    started = time.perf_counter()
    runner = open_runner(json.loads(sys.argv[1]))
    _say(Opened((time.perf_counter() - started) * 1e3))
    for line in sys.stdin:
        _say(turn(runner, **json.loads(line)))


def _say(answer: Opened | Turn) -> None:
    sys.stdout.write(json.dumps(asdict(answer)) + "\n")
    sys.stdout.flush()
