"""``answer``: stretches of a context that answer a question.

Scores and their order are those of transformers' question answering pipeline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import DataError
from edge_sdk.runtime.inputs import Array
from edge_sdk.runtime.scores import Float32, softmax
from edge_sdk.runtime.steps import Span
from edge_sdk.runtime.tasks.results import Answer
from edge_sdk.runtime.tasks.texts import at_least_one, run_pair, text_of
from edge_sdk.runtime.tasks.variant import Variant

MARGIN = 10  # spans looked at beyond twice those asked for, as several give the same words


@dataclass(frozen=True)
class Scores:
    """Probabilities of one window's tokens to start and to end the answer, ``[sequence]``."""

    start: Float32
    end: Float32


def answer(variant: Variant, question: Any, context: Any, top: int) -> list[Answer]:
    """The best answers, best first; see :meth:`edge_sdk.Model.answer`."""
    step = variant.need(Span, "answer questions")
    question, context = text_of(question, "question"), text_of(context, "context")
    at_least_one("top", top)
    found: dict[str, Answer] = {}
    lacking = 1.0
    for part, outputs in run_pair(variant, question, context):
        starts, ends = (_checked(outputs[name], name) for name in (step.start, step.end))
        for encoding, start, end in zip(part.encodings, starts, ends, strict=True):
            scores = probabilities(encoding, start, end)
            lacking = min(lacking, float(scores.start[0] * scores.end[0]))
            for one in spans(context, encoding, scores, step, 2 * top + MARGIN):
                key = one.text.lower()  # what several windows say is surer
                score = one.score + (found[key].score if key in found else 0.0)
                first = found.get(key, one)
                found[key] = Answer(first.text, score, first.start, first.end)
    answers = [*found.values(), *([Answer("", lacking, 0, 0)] if step.may_lack else [])]
    return sorted(answers, key=lambda one: -one.score)[:top]


def probabilities(encoding: Any, start: Array, end: Array) -> Scores:
    """Probabilities over the context's tokens and the first one, which says "no answer".

    Args:
        encoding: The window's tokens, of the tokenizers library.
        start: Logits, ``[sequence]``; padding at the end is not read.
        end: Logits, ``[sequence]``.
    """
    eligible = np.asarray([part == 1 for part in encoding.sequence_ids])
    eligible[0] |= bool(encoding.special_tokens_mask[0])
    start, end = (
        np.where(eligible, logits[: len(eligible)].astype(np.float32), np.float32(-1e4))
        for logits in (start, end)
    )
    return Scores(softmax(start), softmax(end))


def spans(context: str, encoding: Any, scores: Scores, step: Span, most: int) -> Iterator[Answer]:
    """The likeliest spans of one window, whole words each, likeliest first."""
    start, end = scores.start.copy(), scores.end.copy()
    start[0] = end[0] = 0.0
    products: NDArray[np.float32] = np.outer(start, end)
    products = np.tril(np.triu(products), step.max_tokens - 1)  # no end before its start
    flat = products.ravel()
    best = np.argpartition(-flat, most)[:most] if most < flat.size else np.arange(flat.size)
    for place in best[np.argsort(-flat[best], kind="stable")]:
        first, last = divmod(int(place), len(end))
        if flat[place] > 0:
            begin, stop = _word(encoding, first)[0], _word(encoding, last)[1]
            yield Answer(context[begin:stop], float(flat[place]), begin, stop)


def _word(encoding: Any, token: int) -> tuple[int, int]:
    """First character of the word a token belongs to, and the one after its last."""
    word = encoding.token_to_word(token)
    found = None if word is None else encoding.word_to_chars(word, 1)
    begin, stop = found or encoding.offsets[token]
    return begin, stop


def _checked(logits: Array, output: str) -> Array:
    if logits.ndim != 2:
        raise DataError(
            f"expected logits [batch, sequence], given {logits.shape}", where=f"output {output!r}"
        )
    return logits
