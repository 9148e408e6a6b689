"""``embed``: one vector per text."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_sdk.runtime import scores
from edge_sdk.runtime.scores import Float32
from edge_sdk.runtime.steps import Pool
from edge_sdk.runtime.tasks.texts import run_texts, texts_of
from edge_sdk.runtime.tasks.variant import Variant


def embed(variant: Variant, given: Any, batch: int) -> Float32:
    """One vector per text, ``[texts, size]``; see :meth:`edge_sdk.Model.embed`."""
    step = variant.need(Pool, "embed texts")
    rows = texts_of(given)
    if not rows:
        shape = variant.output(step.output).shape
        size = shape[-1] if shape else 0
        return np.zeros((0, size if isinstance(size, int) else 0), np.float32)
    vectors: list[Float32] = []
    order: list[int] = []
    for part, outputs in run_texts(variant, rows, batch):
        vectors.append(scores.pool(outputs[step.output], part.arrays["mask"], step))
        order += part.rows
    return np.concatenate(vectors)[np.argsort(order)]
