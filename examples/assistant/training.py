"""Batches of dialogues, and the loss on them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch.nn import functional

from examples.assistant.dialogue import SEED
from examples.assistant.encoding import Encoded

BATCH_TOKENS = 2048


def batches(examples: Sequence[Encoded]) -> list[list[Encoded]]:
    """Examples of like length together, about ``BATCH_TOKENS`` at once, in random order."""
    drawn: list[list[Encoded]] = [[]]
    for one in sorted(examples, key=lambda one: (len(one.tokens), one.tokens)):
        if (len(drawn[-1]) + 1) * len(one.tokens) > BATCH_TOKENS:
            drawn.append([])
        drawn[-1].append(one)
    random.Random(SEED).shuffle(drawn)
    return drawn


def loss_of(model: torch.nn.Module, batch: Sequence[Encoded], others_weight: float) -> torch.Tensor:
    """Mean cross-entropy of the next token.

    Tokens that the assistant says count 1, those it reads `others_weight`.
    """
    tokens, weights = _padded(batch, others_weight)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens[:, :-1])
    losses = functional.cross_entropy(
        logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    )
    weights = weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


def _padded(batch: Sequence[Encoded], others: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and their weights, [batch, longest]; what follows a dialogue's end weighs nothing."""
    longest = max(len(one.tokens) for one in batch)
    tokens = torch.zeros(len(batch), longest, dtype=torch.long)
    weights = torch.zeros(len(batch), longest)
    for row, one in enumerate(batch):
        tokens[row, : len(one.tokens)] = torch.tensor(one.tokens)
        said = torch.tensor(one.said).float()
        weights[row, : len(one.tokens)] = said + others * (1 - said)
    return tokens, weights
