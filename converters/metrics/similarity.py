"""Metrics over vectors: cosine similarity and agreement on the nearest neighbour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converters.dataset import Array
from converters.metrics.base import Metric, Sequences
from edge_sdk.errors import DataError

Floats = NDArray[np.float64]


def cosine_similarity(a: Array, b: Array) -> float:
    """Cosine of two arrays read as vectors; 1 for two zero vectors, 0 for one.

    Elements that are not finite count only where the two differ in them: then
    the similarity is 0.
    """
    x, y = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    if x.shape != y.shape:
        return 0.0
    finite = np.isfinite(x) & np.isfinite(y)
    if not np.array_equal(x[~finite], y[~finite], equal_nan=True):
        return 0.0
    x, y = x[finite], y[finite]
    # Plain sums, not BLAS: its threads wait on each other, and its sums depend on their number.
    norms = float(np.sqrt(np.sum(x * x) * np.sum(y * y)))
    if norms == 0:
        return float(not x.any() and not y.any())
    return min(1.0, max(-1.0, float(np.sum(x * y)) / norms))


def mean_cosine(predictions: Sequences, references: Sequences) -> float:
    """Mean over samples of the cosine with the reference vector."""
    pairs = zip(predictions, references, strict=True)
    return float(np.mean([cosine_similarity(p, r) for p, r in pairs]))


def same_nearest(predictions: Sequences, references: Sequences) -> float:
    """Share of samples whose nearest neighbour (by cosine) among the others is the same.

    Raises:
        DataError: Fewer than three samples, or vectors of different sizes.
    """
    return float(np.mean(_nearest(predictions) == _nearest(references)))


def _nearest(vectors: Sequences) -> NDArray[np.int64]:
    if len(vectors) < 3 or len({np.size(vector) for vector in vectors}) != 1:
        raise DataError("nearest needs at least three samples with vectors of one size")
    rows = np.stack([np.asarray(vector, np.float64).ravel() for vector in vectors])
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    return np.asarray(similarity.argmax(axis=1))


cosine = Metric("cosine", mean_cosine, needs_labels=False)
nearest = Metric("nearest", same_nearest, needs_labels=False)
