"""``fill``: what may stand in the gaps of a text."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_sdk.errors import BundleError, DataError
from edge_sdk.runtime.scores import softmax
from edge_sdk.runtime.steps import Fill
from edge_sdk.runtime.tasks.results import Filling
from edge_sdk.runtime.tasks.texts import at_least_one, run_texts, text_of
from edge_sdk.runtime.tasks.variant import Variant


def fill(variant: Variant, given: Any, top: int) -> list[list[Filling]]:
    """The likeliest tokens of each gap, likeliest first; see :meth:`edge_sdk.Model.fill`."""
    step = variant.need(Fill, "fill gaps")
    text = text_of(given, "text")
    at_least_one("top", top)
    token = variant.encoder.token(step.gap)
    if token is None:
        raise BundleError("the tokenizer has no such token", where=f"fill: {step.gap!r}")
    [(part, outputs)] = run_texts(variant, [text])
    gaps = np.flatnonzero(part.arrays["ids"][0] == token)
    if not gaps.size:
        raise DataError(
            "has no gap that the model reads",
            where="text",
            remedy=f"write {step.gap} where a word is missing, early enough in a long text",
        )
    logits = outputs[step.output]
    if logits.ndim != 3:
        raise DataError(
            f"expected logits [batch, sequence, vocabulary], given {logits.shape}",
            where=f"output {step.output!r}",
        )
    found = []
    for row in softmax(logits[0, gaps]):
        best = np.argsort(-row, kind="stable")[:top].tolist()
        found.append([Filling(variant.encoder.decode([i]).strip(), float(row[i])) for i in best])
    return found
