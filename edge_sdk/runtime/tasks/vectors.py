"""``embed``: one vector per text."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_sdk.errors import InputError
from edge_sdk.runtime import scores
from edge_sdk.runtime.scores import Float32
from edge_sdk.runtime.steps import Pool
from edge_sdk.runtime.tasks.texts import run_texts, texts_of
from edge_sdk.runtime.tasks.variant import Variant
from edge_sdk.runtime.text import Text


def embed(variant: Variant, given: Any, batch: int, prompt: str | None = None) -> Float32:
    """One vector per text, ``[texts, size]``; see :meth:`edge_sdk.Model.embed`."""
    step = variant.need(Pool, "embed texts")
    rows = _prompted(texts_of(given), step, prompt)
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


def _prompted(rows: list[Text], step: Pool, name: str | None) -> list[Text]:
    """Texts behind the prompt of that name, or behind the default one."""
    name = step.prompt if name is None else name
    if not name:
        return rows
    if name not in step.prompts:
        raise InputError(
            f"{name!r} is none of the model's prompts",
            where="prompt",
            remedy=f"give one of: {', '.join(step.prompts) or 'none; leave it out'}",
        )
    text = step.prompts[name]
    return [text + row if isinstance(row, str) else (text + row[0], row[1]) for row in rows]
