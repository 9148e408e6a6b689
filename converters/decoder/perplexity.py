"""Perplexity: how surprised a model is by text, ``exp`` of its mean loss per token.

Candidates are run as a device runs them, chunk by chunk over a KV cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.decoder.texts import Tokens
from edge_sdk.errors import EngineError

Logits = NDArray[np.float32]
# Positions whose whole logits are kept, to say how alike two models' are.
KEPT = 64
# A loss beyond this is none that a model can recover from; exp() of it is still a number.
WORST = 80.0


@dataclass(frozen=True)
class Scores:
    """What a model made of some windows.

    Attributes:
        loss: Sum of the negative log-likelihoods of all tokens but each window's first.
        tokens: Their number.
        best: int64 [tokens], the likeliest token at each of them.
        kept: float32 [up to 64, vocab], the first logits themselves.
    """

    loss: float
    tokens: int
    best: NDArray[np.int64]
    kept: Logits

    @property
    def perplexity(self) -> float:
        """``exp`` of the mean loss."""
        return math.exp(min(self.loss / self.tokens, WORST))


def score(windows: Iterable[Tokens], logits: Callable[[Tokens], Logits]) -> Scores:
    """Scores a model on windows of tokens.

    Args:
        windows: What to predict.
        logits: Tokens -> logits after each of them, [tokens, vocab].

    Raises:
        EngineError: The logits are not finite.
    """
    loss, best, kept = 0.0, [np.empty(0, np.int64)], list[Logits]()
    for window in windows:
        found = logits(window)[:-1]
        loss += _loss(found, window[1:])
        best.append(found.argmax(axis=1))
        room = KEPT - sum(map(len, kept))
        if room > 0:
            kept.append(found[:room].copy())
    if not math.isfinite(loss):
        raise EngineError("the logits are not finite", where="perplexity")
    counted = np.concatenate(best)
    return Scores(loss, len(counted), counted, np.concatenate(kept))


def increase(candidate: Scores, source: Scores) -> float:
    """Relative increase of perplexity, which is what ``--max-drop`` limits for decoders."""
    return candidate.perplexity / source.perplexity - 1


def cosine(candidate: Logits, source: Logits) -> float:
    """Mean cosine similarity of two models' logits, each centred on its own mean."""
    one, other = (x - x.mean(axis=1, keepdims=True, dtype=np.float64) for x in (candidate, source))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    products: NDArray[Any] = np.einsum("pv,pv->p", one, other)
    return float((products / np.maximum(lengths, 1e-30)).mean())


def _loss(logits: Logits, targets: Sequence[int] | Tokens) -> float:
    top = logits.max(axis=1)
    total = np.log(np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64)) + top
    return float((total - logits[np.arange(len(logits)), targets]).sum())
