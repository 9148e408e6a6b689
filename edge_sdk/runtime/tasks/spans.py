"""``answer``: stretches of a context that answer a question.

Scores and their order are those of transformers' question answering pipeline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
class Window:
    """The question with a window of the context.

    Attributes:
        encoding: Its tokens, of the tokenizers library.
        start: Logits of where the answer starts, ``[sequence]``; padding is not read.
        end: Logits of where it ends.
    """

    encoding: Any
    start: Array
    end: Array


def answer(variant: Variant, question: Any, context: Any, top: int) -> list[Answer]:
    """The best answers, best first; see :meth:`edge_sdk.Model.answer`."""
    step = variant.need(Span, "answer questions")
    question, context = text_of(question, "question"), text_of(context, "context")
    at_least_one("top", top)
    windows: dict[int, Window] = {}
    for part, outputs in run_pair(variant, question, context):
        starts, ends = (_checked(outputs[name], name) for name in (step.start, step.end))
        rows = zip(part.encodings, starts, ends, strict=True)
        windows.update(zip(part.rows, (Window(*row) for row in rows), strict=True))
    return best_answers(context, [windows[row] for row in sorted(windows)], step, top)


def best_answers(context: str, windows: Sequence[Window], step: Span, top: int) -> list[Answer]:
    """The best answers in all windows, best first; what several windows say is surer.

    Args:
        context: The whole context.
        windows: Its windows in order.
        step: How long an answer may be, and whether it may lack.
        top: Most answers.
    """
    found: dict[str, Answer] = {}
    lacking = 1.0
    for window in windows:
        start, end = probabilities(window)
        lacking = min(lacking, float(start[0] * end[0]))
        for one in _spans(context, window.encoding, start, end, step.max_tokens, 2 * top + MARGIN):
            first = found.get(one.text.lower())
            if first is not None:
                one = Answer(first.text, first.score + one.score, first.start, first.end)
            found[one.text.lower()] = one
    answers = [*found.values(), *([Answer("", lacking, 0, 0)] if step.may_lack else [])]
    return sorted(answers, key=lambda each: -each.score)[:top]


def probabilities(window: Window) -> tuple[Float32, Float32]:
    """Of each token to start and to end the answer: the context's, and the first, for none."""
    encoding = window.encoding
    eligible = np.asarray([part == 1 for part in encoding.sequence_ids])
    eligible[0] |= bool(encoding.special_tokens_mask[0])
    start, end = (
        np.where(eligible, logits[: len(eligible)].astype(np.float32), np.float32(-1e4))
        for logits in (window.start, window.end)
    )
    return softmax(start), softmax(end)


def _spans(
    context: str, encoding: Any, start: Float32, end: Float32, longest: int, most: int
) -> Iterator[Answer]:
    """The likeliest spans of one window, whole words each, likeliest first."""
    products: NDArray[np.float32] = np.outer(start, end)
    products[0] = products[:, 0] = 0.0  # "no answer" is no span
    products = np.tril(np.triu(products), longest - 1)  # no end before its start
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
