"""Models that write token by token, timed in turn."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from converters.comparison.model import Dialogue
from converters.comparison.subject import Subject
from edge_sdk.runtime.generation.completion import Completion
from edge_sdk.runtime.model import Model

# New tokens of the answer that stands for all.
ANSWER = 32
MIN_TURNS = 3


@dataclass
class Writes(ABC):
    """A loaded model with the times of its answers.

    Attributes:
        subject: The model.
        model: The same, loaded.
        ttft_ms: Time to the first token, turn by turn.
        step_ms: Time of each further one.
    """

    subject: Subject
    model: Model
    ttft_ms: list[float] = field(default_factory=list, init=False)
    step_ms: list[float] = field(default_factory=list, init=False)

    @abstractmethod
    def ask(self, turn: int) -> Completion:
        """Begins the answer of one turn."""

    def turn(self) -> None:
        """Answers once."""
        completion = self.ask(len(self.ttft_ms))
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

    def speedup(self, baseline: Writes) -> float:
        """Median over turns of the baseline's time over this one's."""
        return round(float(np.median(baseline.answer_ms / self.answer_ms)), 3)

    def figures(self, prompt_tokens: int) -> Dialogue:
        """Medians over turns."""
        step = float(np.median(self.step_ms))
        return Dialogue(
            ttft_ms=float(np.median(self.ttft_ms)),
            tokens_per_second=1e3 / step if step else 0.0,
            prompt_tokens=prompt_tokens,
        )


def answer_in_turns(models: Sequence[Writes], seconds: float) -> None:
    """Lets models answer in turn, so that what disturbs the machine disturbs all of them."""
    deadline = time.perf_counter() + seconds
    number = 0
    while number < MIN_TURNS or time.perf_counter() < deadline:
        for each in models if number % 2 else reversed(models):
            each.turn()
        number += 1
