"""Metrics over class scores: top-1 accuracy, macro F1, area under the ROC curve.

Predictions are scores with classes on the last axis (one probability or logit
counts as the positive of two classes) or class numbers; references are class
numbers, one per row of scores.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converters.metrics.base import Metric, Sequences
from edge_sdk.errors import DataError

Floats = NDArray[np.float64]
Classes = NDArray[np.int64]


def score_rows(arrays: Sequences, *, in_unit: bool | None = None) -> Floats:
    """Scores of all samples as [rows, classes].

    A single score becomes two, the negative's first: 1 - p for a probability,
    -x for a logit. ``in_unit`` says that they are probabilities; ``None`` looks.
    """
    parts = [np.asarray(a, dtype=np.float64) for a in arrays]
    rows = np.concatenate([a.reshape(-1, a.shape[-1] if a.ndim else 1) for a in parts])
    if rows.shape[1] != 1:
        return rows
    return np.hstack([1 - rows if (is_unit(rows) if in_unit is None else in_unit) else -rows, rows])


def is_unit(values: Floats) -> bool:
    """Whether all values lie in 0..1."""
    return bool(((values >= 0) & (values <= 1)).all())


def probabilities(rows: Floats) -> Floats:
    """Rows of scores as they are where all lie in 0..1, else their softmax."""
    if is_unit(rows):
        return rows
    exponents = np.exp(rows - rows.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def decisions(values: Sequences) -> Classes:
    """Class numbers: as given (floats too, one per sample), or the best of each row of scores."""
    numbers = all(np.ndim(value) == 0 and np.equal(np.mod(value, 1), 0) for value in values)
    if np.asarray(values[0]).dtype.kind == "f" and not numbers:
        return np.asarray(score_rows(values).argmax(axis=1))
    return np.concatenate([np.ravel(v) for v in values]).astype(np.int64)


def top1_accuracy(predictions: Sequences, references: Sequences) -> float:
    """Share of rows whose best class is the reference."""
    predicted, actual = _paired(predictions, references)
    return float(np.mean(predicted == actual))


def macro_f1(predictions: Sequences, references: Sequences) -> float:
    """F1 per class that is predicted or occurs, averaged without weights."""
    predicted, actual = _paired(predictions, references)
    scores = []
    for number in np.union1d(predicted, actual):
        hits = np.sum((predicted == number) & (actual == number))
        scores.append(2 * hits / (np.sum(predicted == number) + np.sum(actual == number)))
    return float(np.mean(scores))


def roc_auc(predictions: Sequences, references: Sequences) -> float:
    """Area under the ROC curve; for several classes the mean of one-versus-rest.

    The area is the probability that a positive outranks a negative (Hanley and
    McNeil, 1982), computed from ranks, ties counting half.

    Raises:
        DataError: The labels hold only one class, or the outputs are no scores.
    """
    _paired(predictions, references)
    if any(np.asarray(p).dtype.kind != "f" for p in predictions):
        raise DataError("auc needs scores, and the model's output is class numbers")
    rows = probabilities(score_rows(predictions))
    actual = decisions(references)
    classes = [1] if rows.shape[1] == 2 else range(rows.shape[1])
    areas = [
        _area(rows[:, number], actual == number)
        for number in classes
        if 0 < np.sum(actual == number) < len(actual)
    ]
    if not areas:
        raise DataError("auc needs labels of more than one class", where="labels")
    return float(np.mean(areas))


def _area(scores: Floats, positive: NDArray[np.bool_]) -> float:
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives, negatives = int(positive.sum()), int((~positive).sum())
    wins = ranks[positive].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))


def _check_classes(actual: Classes, predictions: Sequences) -> None:
    if np.asarray(predictions[0]).dtype.kind != "f":
        return
    count = score_rows(predictions).shape[1]
    for wrong in actual[(actual < 0) | (actual >= count)][:1]:
        raise DataError(
            f"{wrong} is no class: the model scores classes 0 to {count - 1}",
            where="labels",
            remedy="number the classes as the model does, from 0",
        )


def _paired(predictions: Sequences, references: Sequences) -> tuple[Classes, Classes]:
    if any(np.asarray(r).dtype.kind not in "iubf" for r in references):
        raise DataError(
            "labels are text, and this metric needs class numbers",
            where="labels",
            remedy="give class numbers, or class names the model knows",
        )
    predicted, actual = decisions(predictions), decisions(references)
    _check_classes(actual, predictions)
    if len(predicted) != len(actual):
        raise DataError(
            f"{len(actual)} labels do not fit {len(predicted)} predictions",
            where="labels",
            remedy="give one class number per sample, or per step of a sequence",
        )
    return predicted, actual


top1 = Metric("top1", top1_accuracy, needs_labels=False)
f1 = Metric("f1", macro_f1)
auc = Metric("auc", roc_auc)
