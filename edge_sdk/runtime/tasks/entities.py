"""``tag``: stretches of texts with a label, grouped as transformers' pipeline does it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_sdk.errors import DataError
from edge_sdk.runtime.inputs import Array
from edge_sdk.runtime.scores import Float32, softmax
from edge_sdk.runtime.steps import Aggregation, Entities, Tokenize
from edge_sdk.runtime.tasks.results import Entity
from edge_sdk.runtime.tasks.texts import run_texts, texts_of
from edge_sdk.runtime.tasks.variant import Variant


@dataclass(frozen=True)
class Piece:
    """A token, or a word: probability per label, and where it stands."""

    scores: Float32
    start: int
    end: int


def tag(variant: Variant, given: Any) -> list[list[Entity]]:
    """The entities of each text, in their order; see :meth:`edge_sdk.Model.tag`."""
    step = variant.need(Entities, "tag texts")
    texts = [text for text in texts_of(given, pairs=False) if isinstance(text, str)]
    marked = variant.encoder.marks_subwords
    long = variant.need(Tokenize, "take text").stride > 0
    found: list[list[Entity]] = [[] for _ in texts]
    windows: Counter[int] = Counter()
    for part, outputs in run_texts(variant, texts, windows=long):
        windows.update(part.rows)
        for row, encoding, logits in zip(
            part.rows, part.encodings, _checked(outputs[step.output], step), strict=True
        ):
            found[row] += entities(texts[row], encoding, softmax(logits), step, marked)
    return [without_overlap(own) if windows[row] > 1 else own for row, own in enumerate(found)]


def entities(
    text: str, encoding: Any, scores: Float32, step: Entities, marked: bool
) -> list[Entity]:
    """The entities of one window of a text.

    Args:
        text: The whole text.
        encoding: The window's tokens, of the tokenizers library.
        scores: ``[sequence, labels]``, probabilities; padding at the end is not read.
        step: How tokens become entities.
        marked: Whether tokens say by their form that they continue a word.
    """
    words = [_word(word, step.aggregation) for word in _words(text, encoding, scores, step, marked)]
    tags = [(step.names[int(word.scores.argmax())], word) for word in words]
    groups = [[each] for each in tags] if step.aggregation == "none" else _groups(tags)
    found = []
    for group in groups:
        label = group[0][0] if step.aggregation == "none" else _kind(group[0][0])
        if not {label, group[0][0]} & set(step.ignore):
            score = float(np.mean([word.scores.max() for _, word in group]))
            start, end = group[0][1].start, group[-1][1].end
            found.append(Entity(label, score, text[start:end], start, end))
    return found


def without_overlap(found: Iterable[Entity]) -> list[Entity]:
    """In the order of the text; of those that overlap (windows do), the longest, then surest."""
    kept: list[Entity] = []
    for entity in sorted(found, key=lambda one: one.start):
        if kept and entity.start < kept[-1].end:
            kept[-1] = max(kept[-1], entity, key=lambda one: (one.end - one.start, one.score))
        else:
            kept.append(entity)
    return kept


def _checked(logits: Array, step: Entities) -> Array:
    if logits.ndim != 3 or logits.shape[2] != len(step.names):
        raise DataError(
            f"expected logits [batch, sequence, {len(step.names)}], one per label, "
            f"given {logits.shape}",
            where=f"output {step.output!r}",
        )
    return logits


def _words(
    text: str, encoding: Any, scores: Float32, step: Entities, marked: bool
) -> Iterator[list[Piece]]:
    """Tokens one by one, or word by word where the aggregation is by words."""
    by_words = step.aggregation in ("first", "average", "max")
    word: list[Piece] = []
    for i, (start, end) in enumerate(encoding.offsets):
        if encoding.special_tokens_mask[i]:
            continue
        if word and not (by_words and _continues(text, encoding, i, marked)):
            yield word
            word = []
        word.append(Piece(scores[i], start, end))
    if word:
        yield word


def _continues(text: str, encoding: Any, token: int, marked: bool) -> bool:
    """Whether a token belongs to the word before it."""
    if marked:
        before = encoding.word_ids[token - 1] if token else None
        return before is not None and encoding.word_ids[token] == before
    start = encoding.offsets[token][0]
    return start > 0 and " " not in text[start - 1 : start + 1]


def _word(pieces: Sequence[Piece], aggregation: Aggregation) -> Piece:
    if aggregation == "average":
        scores = np.mean([piece.scores for piece in pieces], axis=0)
    elif aggregation == "max":
        scores = max((piece.scores for piece in pieces), key=lambda each: float(each.max()))
    else:
        scores = pieces[0].scores
    return Piece(scores, pieces[0].start, pieces[-1].end)


def _groups(tags: Sequence[tuple[str, Piece]]) -> list[list[tuple[str, Piece]]]:
    """Neighbours of one kind together; ``B-`` begins another group."""
    groups: list[list[tuple[str, Piece]]] = []
    for label, word in tags:
        begins = not groups or label.startswith(("B-", "S-"))
        if not begins and _kind(groups[-1][-1][0]) == _kind(label):
            groups[-1].append((label, word))
        else:
            groups.append([(label, word)])
    return groups


def _kind(label: str) -> str:
    """A label without the letter that tells an entity's first word from the next (BIOES)."""
    return label[2:] if label.startswith(("B-", "I-", "E-", "S-")) else label
