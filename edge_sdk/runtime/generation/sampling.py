"""Which token comes next: from logits to one token, filtered, weighted and drawn.

Pure numpy. The filters keep what the field's names promise: repetition penalty
(Keskar et al. 2019, CTRL), top-k (Fan et al. 2018), top-p or nucleus (Holtzman et
al. 2019) and min-p (Nguyen et al. 2024), in the order that
:class:`~edge_sdk.bundle.record.Sampling` documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.bundle.record import Sampling
from edge_sdk.errors import EngineError, InputError

Logits = NDArray[np.floating[Any]]
# How many of the likeliest tokens are looked at for top-p before all of them are: a whole
# vocabulary takes longer to sort than a small model takes to compute.
NUCLEUS_SIZES = (1 << 8, 1 << 12)
SMALLEST = np.finfo(np.float32).tiny  # temperatures below it are zero in float32
BLOCK = 16  # values whose maximum stands for them


@dataclass(frozen=True)
class Distribution:
    """Tokens that may be drawn, and how likely each is.

    Attributes:
        tokens: int64 ``[kept]``.
        weights: float32 ``[kept]``, in proportion to the probabilities.
    """

    tokens: NDArray[np.int64]
    weights: NDArray[np.float32]


class Sampler:
    """Draws the tokens of one sequence. Not to be shared between sequences.

    The same seed, prompt and logits give the same tokens.

    Args:
        sampling: How to draw.
        prompt_tokens: What the sequence begins with; the repetition penalty counts them.

    Raises:
        InputError: A value of ``sampling`` is out of its range.
    """

    def __init__(self, sampling: Sampling, prompt_tokens: Sequence[int] = ()) -> None:
        check_sampling(sampling)
        self._sampling = sampling
        self._penalizes = sampling.repetition_penalty != 1
        self._seen = set(prompt_tokens) if self._penalizes else set()
        self._random = np.random.default_rng(sampling.seed) if sampling.temperature else None

    def next(self, logits: Logits) -> int:
        """The next token.

        Args:
            logits: Float ``[vocab]``, left as they are. ``-inf`` bars a token.

        Raises:
            EngineError: The largest logit is NaN or infinite.
        """
        if self._penalizes:
            logits = penalized(logits, self._seen, self._sampling.repetition_penalty)
        if self._random is None:
            token = likeliest(logits)
        else:
            token = _draw(distribution(logits, self._sampling), self._random)
        if self._penalizes:
            self._seen.add(token)
        return token


def likeliest(logits: Logits) -> int:
    """The token with the largest logit; the first one of several.

    Raises:
        EngineError: That logit is NaN or infinite.
    """
    token = int(np.argmax(logits))  # a NaN anywhere is what argmax finds
    if not math.isfinite(logits[token]):
        raise EngineError(
            f"the model computed {logits[token]} for token {token}",
            where="logits",
            remedy="run the bundle's self-test: its weights or this machine's engine are at fault",
        )
    return token


def penalized(logits: Logits, seen: set[int], penalty: float) -> Logits:
    """Logits with those of the tokens seen divided by ``penalty``, or multiplied if negative."""
    tokens = np.fromiter(seen, np.int64, len(seen))
    result = logits.copy()
    values = result[tokens]
    result[tokens] = np.where(values > 0, values / penalty, values * penalty)
    return result


def distribution(logits: Logits, sampling: Sampling) -> Distribution:
    """What may be drawn after temperature, top-k, top-p and min-p.

    Args:
        logits: Float ``[vocab]``.
        sampling: The filters; its temperature is above 0.

    Raises:
        EngineError: The largest logit is NaN or infinite.
    """
    peak = logits[likeliest(logits)]
    tokens = _top(logits, sampling.top_k) if sampling.top_k else np.arange(logits.size)
    with np.errstate(over="ignore"):  # a temperature near 0 leaves the likeliest alone
        temperature = max(np.float32(sampling.temperature), SMALLEST)
        scores = (logits[tokens] - peak).astype(np.float32) / temperature
    weights = np.exp(scores)  # 1 for the likeliest
    if sampling.top_p < 1:
        kept = _nucleus(weights, sampling.top_p)
        tokens, weights = tokens[kept], weights[kept]
    if sampling.min_p:
        kept = np.flatnonzero(weights >= sampling.min_p)
        tokens, weights = tokens[kept], weights[kept]
    return Distribution(tokens, weights)


def _top(values: Logits, count: int) -> NDArray[np.int64]:
    """Positions of the ``count`` largest values, largest first; of equal ones the first ones.

    A partition alone would leave equal values at the boundary to the CPU's own algorithm.
    One of the whole vocabulary takes a tenth of a small model's token, so a few values are
    found among the maxima of blocks: as many blocks reach the bound, so as many values do.
    """
    blocks = values.size // BLOCK
    chosen = np.arange(values.size)
    if count < values.size:
        few = values[: blocks * BLOCK].reshape(blocks, BLOCK).max(axis=1, initial=-np.inf)
        chosen = np.flatnonzero(values >= _nth_largest(few if count <= blocks else values, count))
    return chosen[np.argsort(-values[chosen], kind="stable")][:count]


def _nth_largest(values: Logits, count: int) -> np.floating[Any]:
    found: np.floating[Any] = np.partition(values, -count)[-count]
    return found


def _nucleus(weights: Logits, share: float) -> NDArray[np.int64]:
    """The smallest set of positions, heaviest first, that holds ``share`` of the weight."""
    goal = share * weights.sum(dtype=np.float64)
    for count in (*NUCLEUS_SIZES, weights.size):
        best = _top(weights, count)
        reached = np.cumsum(weights[best], dtype=np.float64)
        if reached[-1] >= goal:
            break
    return best[: int(np.searchsorted(reached, goal)) + 1]


def _draw(choice: Distribution, random: np.random.Generator) -> int:
    reached = np.cumsum(choice.weights, dtype=np.float64)
    # random() is below 1, but the product may round up to the very end.
    place = np.searchsorted(reached, random.random() * reached[-1], side="right")
    return int(choice.tokens[min(int(place), reached.size - 1)])


# field -> its range in words, the test for it
_RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "temperature": ("a number from 0", lambda value: 0 <= value < math.inf),
    "top_k": ("a whole number from 0", lambda value: value >= 0),
    "top_p": ("a number above 0, at most 1", lambda value: 0 < value <= 1),
    "min_p": ("a number from 0 to 1", lambda value: 0 <= value <= 1),
    "repetition_penalty": ("a number from 0.01 to 100", lambda value: 0.01 <= value <= 100),
    "seed": ("a whole number from 0, or none", lambda value: value is None or value >= 0),
}
_WHOLE = ("top_k", "seed")


def check_sampling(sampling: Sampling) -> None:
    """Checks every value against its range.

    Raises:
        InputError: One is outside; the error names it and the range.
    """
    for field, (range_, inside) in _RANGES.items():
        value = getattr(sampling, field)
        kinds = int if field in _WHOLE else (int, float)
        if value is None and field == "seed":
            continue
        if not isinstance(value, kinds) or isinstance(value, bool) or not inside(value):
            raise InputError(f"{value!r} is not {range_}", where=field)
