"""From a model's raw outputs to embeddings and labelled scores: numpy only, pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import DataError
from edge_sdk.runtime.inputs import Array
from edge_sdk.runtime.steps import Pool
from edge_sdk.runtime.tasks.results import Classification

Float32 = NDArray[np.float32]

# Read before an engine is loaded: tflite-runtime has small numbers flushed to zero, which
# numpy, when first asked about floats, would warn of.
TINY = np.finfo(np.float32).tiny


def pool(tokens: Array, mask: NDArray[np.int64], step: Pool) -> Float32:
    """One vector per text.

    Args:
        tokens: ``[batch, sequence, size]``, or ``[batch, size]`` for mode ``none``.
        mask: ``[batch, sequence]``, 1 for tokens of the text and 0 for padding.
        step: How to pool.

    Returns:
        ``[batch, size]``, float32.

    Raises:
        DataError: The output has another rank than the mode needs.
    """
    rank = 2 if step.mode == "none" else 3
    if tokens.ndim != rank:
        raise DataError(
            f"pooling {step.mode!r} needs an output of rank {rank}, given {tokens.shape}",
            where=f"output {step.output!r}",
        )
    values = tokens.astype(np.float32, copy=False)
    if step.mode == "cls":
        values = values[:, 0]
    elif step.mode == "mean":
        weights = mask.astype(np.float32)
        total = np.einsum("bsh,bs->bh", values, weights)
        values = total / np.maximum(weights.sum(axis=1, keepdims=True), 1)
    if step.normalize:
        length = np.linalg.norm(values, axis=1, keepdims=True)
        values = values / np.maximum(length, TINY)
    return values


def softmax(logits: Array) -> Float32:
    """Probabilities over the last axis; shifted by the maximum, so nothing overflows."""
    values = logits.astype(np.float32, copy=False)
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    result: Float32 = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def sigmoid(logits: Array) -> Float32:
    """One probability each; by the half argument's tanh, so nothing overflows."""
    values = logits.astype(np.float32, copy=False)
    result: Float32 = np.float32(0.5) * (np.tanh(values * np.float32(0.5)) + np.float32(1))
    return result


def rank(scores: Array, labels: Sequence[str], top: int, output: str) -> list[list[Classification]]:
    """The ``top`` best classes of each row, best first.

    Raises:
        DataError: The scores are no ``[batch, classes]`` with one label per class.
    """
    if scores.ndim != 2 or scores.shape[1] != len(labels):
        raise DataError(
            f"expected scores [batch, {len(labels)}], one per label, given {scores.shape}",
            where=f"output {output!r}",
        )
    values = scores.astype(np.float32, copy=False)
    best = np.argsort(-values, axis=1, kind="stable")[:, :top]
    return [
        [Classification(labels[i], float(row[i])) for i in order]
        for row, order in zip(values, best, strict=True)
    ]
