"""Metrics over text and token ids: perplexity, exact match, BLEU, ROUGE-L, word error rate.

Text is split at white space; integer arrays are taken as sequences of tokens,
so the same metrics serve models that put out ids.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from converters.dataset import Array
from converters.metrics.base import Metric, Sequences
from converters.metrics.classification import score_rows
from edge_sdk.errors import DataError

Tokens = Sequence[Hashable]
IGNORED = -100  # the target that torch's cross entropy also leaves out
MAX_GRAM = 4


def tokens(value: Array) -> list[Hashable]:
    """Words of a text, or the elements of an integer array.

    Raises:
        DataError: The array holds neither text nor integers.
    """
    array = np.asarray(value)
    if array.dtype.kind in "iub":
        return [int(item) for item in array.flat]
    if array.dtype.kind in "UO":
        return [word for text in array.flat for word in str(text).split()]
    raise DataError(
        f"text metrics need text or token ids, not {array.dtype} values",
        remedy="give --metric module:function that decodes the model's outputs",
    )


def token_perplexity(predictions: Sequences, references: Sequences) -> float:
    """Exponential of the mean negative log likelihood of the target tokens.

    Args:
        predictions: Logits [..., positions, vocabulary] per sample.
        references: The token each position should predict; -100 is left out.
    """
    total, count = 0.0, 0
    for logits, target in zip(predictions, references, strict=True):
        rows, wanted = score_rows([logits]), np.asarray(target).ravel()
        if wanted.dtype.kind not in "iu" or len(wanted) != len(rows):
            raise DataError(
                f"targets of shape {list(np.shape(target))} do not fit {len(rows)} positions",
                where="labels",
                remedy="give one token id per position of the logits",
            )
        kept = wanted != IGNORED
        rows, wanted = rows[kept], wanted[kept]
        peak = rows.max(axis=1, initial=-np.inf)
        log_sum = np.log(np.exp(rows - peak[:, None]).sum(axis=1)) + peak
        total += float((log_sum - rows[np.arange(len(rows)), wanted]).sum())
        count += len(wanted)
    return math.exp(total / count) if count else math.nan


def exact_matches(predictions: Sequences, references: Sequences) -> float:
    """Share of samples whose tokens are all the same."""
    pairs = zip(predictions, references, strict=True)
    return float(np.mean([tokens(p) == tokens(r) for p, r in pairs]))


def corpus_bleu(predictions: Sequences, references: Sequences) -> float:
    """BLEU over the corpus, 0..1: 1- to 4-grams with the brevity penalty, not smoothed.

    Papineni et al., "BLEU: a method for automatic evaluation of machine
    translation", ACL 2002.
    """
    hits, totals = [0] * MAX_GRAM, [0] * MAX_GRAM
    length = wanted = 0
    for prediction, reference in zip(predictions, references, strict=True):
        said, truth = tokens(prediction), tokens(reference)
        length, wanted = length + len(said), wanted + len(truth)
        for n in range(1, MAX_GRAM + 1):
            grams = _grams(said, n)
            hits[n - 1] += (grams & _grams(truth, n)).total()
            totals[n - 1] += grams.total()
    if not all(hits):
        return 0.0
    precision = sum(math.log(h / t) for h, t in zip(hits, totals, strict=True)) / MAX_GRAM
    return math.exp(min(0.0, 1 - wanted / length) + precision)


def rouge_l_f1(predictions: Sequences, references: Sequences) -> float:
    """Mean F1 of the longest common subsequence (Lin, "ROUGE", 2004; beta = 1)."""
    scores = []
    for prediction, reference in zip(predictions, references, strict=True):
        said, truth = tokens(prediction), tokens(reference)
        total = len(said) + len(truth)
        scores.append(2 * _common(said, truth) / total if total else 1.0)
    return float(np.mean(scores))


def word_error_rate(predictions: Sequences, references: Sequences) -> float:
    """Substitutions, insertions and deletions over the number of reference words."""
    errors = words = 0
    for prediction, reference in zip(predictions, references, strict=True):
        truth = tokens(reference)
        errors += _edits(tokens(prediction), truth)
        words += len(truth)
    return errors / words if words else float(errors > 0)


def _grams(words: Tokens, n: int) -> Counter[tuple[Hashable, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _common(a: Tokens, b: Tokens) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def _edits(a: Tokens, b: Tokens) -> int:
    """Levenshtein distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            cost = min(diagonal + (x != y), row[j] + 1, row[j - 1] + 1)
            diagonal, row[j] = row[j], cost
    return row[-1]


perplexity = Metric(
    "perplexity", token_perplexity, higher_is_better=False, relative=True, max_drop=0.05
)
exact_match = Metric("exact-match", exact_matches, needs_labels=False)
bleu = Metric("bleu", corpus_bleu)
rouge_l = Metric("rouge-l", rouge_l_f1)
wer = Metric("wer", word_error_rate, higher_is_better=False)
