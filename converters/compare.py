"""Compares a candidate's outputs with the fp32 source's on the same samples.

What is compared, per output:

* floats by cosine similarity, per sample over all its calls (token vectors of
  an encoder are averaged first, as an embedding is used);
* fewer than eight floats per call, where a cosine says little, by Lin's
  concordance over all samples;
* scores that share an array with box coordinates (as detectors put them out)
  once more on their own, because next to pixels they weigh nothing;
* integers, booleans and text by the share that is equal.

The worst output counts. Where the decision output is class scores, the share
of decisions that changed counts too, except ties: if the source itself holds
two classes equal within one point of probability, either is its answer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from converters.dataset import Array, Dataset, Outputs, roll, zero_states
from converters.metrics import Metric, find_metric
from converters.metrics.classification import Floats, is_unit, probabilities, score_rows
from converters.metrics.similarity import cosine_similarity, mean_cosine, same_nearest
from edge_sdk.bundle.record import Agreement, State
from edge_sdk.errors import DataError
from edge_sdk.runtime.engine import Session

SampleOutputs = tuple[Outputs, ...]
EMBEDDING_TASKS = frozenset({"feature-extraction", "embedding", "sentence-similarity"})
TIE = 0.01
_FEW = 8
_MOST_CLASSES, _VOCABULARY = 10_000, 1000
_A_SCORE, _A_PIXEL = 0.05, 10.0
_SCORE_WORDS = ("logit", "prob", "score", "softmax", "class", "label")


def run(session: Session, dataset: Dataset, states: Sequence[State] = ()) -> list[SampleOutputs]:
    """All outputs of every call of every sample, states rolled along each sequence."""
    initial = zero_states(session.inputs, states)
    return [tuple(roll(session, sample, states, initial)) for sample in dataset.samples]


def agreement(
    source: Sequence[SampleOutputs],
    candidate: Sequence[SampleOutputs],
    *,
    labels: Array | None = None,
    metric: Metric | None = None,
    task: str = "generic",
) -> Agreement:
    """How well a candidate's outputs agree with the source's.

    Args:
        source: What :func:`run` gave for the source.
        candidate: What it gave for the candidate, on the same samples.
        labels: Label per sample, or per step of each sequence.
        metric: Task metric; top-1 where labels are class numbers and none is given.
        task: ``feature-extraction`` makes outputs embeddings.

    Returns:
        The figures, to six significant digits. ``drop`` is the metric's where
        there is one, else the worst of 1 - similarity and changed decisions.

    Raises:
        DataError: The metric needs labels, or the labels do not fit the outputs.
    """
    pairs = [
        _Pair(name, _arrays(source, name, task), _arrays(candidate, name, task))
        for name in source[0][0]
    ]
    first = next((pair for pair in pairs if pair.is_float), pairs[0])
    pairs += [hidden for pair in pairs if (hidden := _scores_beside_boxes(pair))]
    scores = None if task in EMBEDDING_TASKS else _decision_output(pairs)
    drop, drop_of = _worst(pairs, first)
    top1 = None
    if scores and not scores.broken:
        top1, changed = _decisions(scores)
        if changed > drop:
            drop, drop_of = changed, "1 - top1 agreement"
    if metric is None and scores and _is_classes(labels):
        metric = find_metric("top1")
    values = {}
    if metric and not any(pair.broken for pair in pairs):
        values[metric.name] = _measure(metric, scores or pairs[0], labels)
        drop, drop_of = metric.drop(*values[metric.name]), f"drop of {metric.name}"
    return Agreement(
        samples=len(source),
        cosine=_round(first.similarity),
        max_error=_round(max(pair.max_error for pair in pairs)),
        drop=_round(drop),
        drop_of=drop_of,
        top1=None if top1 is None else _round(top1),
        nearest=_neighbours(first) if task in EMBEDDING_TASKS else None,
        metrics={name: (_round(a), _round(b)) for name, (a, b) in values.items()},
    )


@dataclass(frozen=True)
class _Pair:
    """One output of source and candidate: sample -> call -> array.

    ``together`` compares all samples as one vector, where most samples hold next to nothing.
    """

    name: str
    source: list[list[Array]]
    candidate: list[list[Array]]
    together: bool = False

    @cached_property
    def calls(self) -> list[tuple[Array, Array]]:
        """Source and candidate arrays of every call."""
        return [
            pair
            for mine, other in zip(self.source, self.candidate, strict=True)
            for pair in zip(mine, other, strict=True)
        ]

    @cached_property
    def is_float(self) -> bool:
        return self.source[0][0].dtype.kind == "f"

    @cached_property
    def broken(self) -> str | None:
        """Why the candidate cannot be right, whatever its figures."""
        if any(a.shape != b.shape for a, b in self.calls):
            return "shape differs"
        if self.is_float and any((np.isfinite(a) & ~np.isfinite(b)).any() for a, b in self.calls):
            return "not finite"
        return None

    @cached_property
    def is_scores(self) -> bool:
        return self.is_float and _is_scores(self.name, [a for a, _ in self.calls])

    @cached_property
    def measure(self) -> str:
        """How it is compared: ``exact match``, ``concordance`` or ``cosine``."""
        if not self.is_float:
            return "exact match"
        few = max(a.size for a, _ in self.calls) < _FEW
        return "concordance" if few and not self.is_scores else "cosine"

    @cached_property
    def similarity(self) -> float:
        """1 for equal outputs, by that measure."""
        if self.broken:
            return 0.0
        if self.measure == "exact match":
            return float(np.mean([np.mean(a == b) if a.size else 1.0 for a, b in self.calls]))
        mine, other = [_joined(s) for s in self.source], [_joined(s) for s in self.candidate]
        if self.measure == "concordance":
            return _concordance(_joined(mine), _joined(other))
        if self.is_scores and max(a.size for a, _ in self.calls) < _FEW:
            sources, candidates = zip(*self.calls, strict=True)
            rows = score_rows(sources)
            in_unit = is_unit(rows)
            return cosine_similarity(rows, score_rows(candidates, in_unit=in_unit))
        if self.together:
            return cosine_similarity(_joined(mine), _joined(other))
        return mean_cosine(other, mine)

    @cached_property
    def max_error(self) -> float:
        """Largest absolute difference; the largest float where there is no telling."""
        if self.broken:
            return sys.float_info.max
        worst = 0.0
        for a, b in self.calls:
            if a.dtype.kind in "fiub":
                differs = (a != b) & ((a == a) | (b == b))
                x, y = a[differs].astype(np.float64), b[differs].astype(np.float64)
                worst = max(worst, float(np.abs(x - y).max(initial=0.0)))
        return min(worst, sys.float_info.max)


def _worst(pairs: Sequence[_Pair], first: _Pair) -> tuple[float, str]:
    """The drop of the output that agrees least, and what it is."""
    worst = min(pairs, key=lambda pair: pair.similarity)
    drop_of = f"1 - {worst.measure}"
    if worst.broken:
        return 1.0, f"output {worst.name} {worst.broken}"
    return 1 - worst.similarity, drop_of if worst is first else f"{drop_of} of {worst.name}"


def _arrays(samples: Sequence[SampleOutputs], name: str, task: str) -> list[list[Array]]:
    return [[_array(outputs[name], task) for outputs in calls] for calls in samples]


def _array(value: object, task: str) -> Array:
    """An output as an array: token vectors averaged, a list of maps or arrays joined."""
    if isinstance(value, list):
        parts = [list(item.values()) if isinstance(item, dict) else item for item in value]
        return np.concatenate([np.ravel(np.asarray(part)) for part in parts or [[]]])
    array = np.asarray(value)
    if task in EMBEDDING_TASKS and array.ndim == 3 and array.dtype.kind == "f" and array.size:
        return np.asarray(array.mean(axis=1, dtype=np.float64))
    return array


def _joined(arrays: Sequence[Array]) -> Array:
    return np.concatenate([array.ravel() for array in arrays])


def _concordance(a: Array, b: Array) -> float:
    """Lin's concordance correlation coefficient (1989): 1 only where b equals a.

    The spread of ``a`` counts as at least 1 % of its magnitude, so that the
    noise of a constant output does not decide.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    if not np.array_equal(x[~finite], y[~finite], equal_nan=True):
        return 0.0
    x, y = x[finite], y[finite]
    if np.array_equal(x, y):
        return 1.0
    floor = (0.01 * float(np.abs(x).max())) ** 2
    spread = x.var() + y.var() + (x.mean() - y.mean()) ** 2 + floor
    distance = float(np.mean((x - y) ** 2))
    # 2 cov = var x + var y + (mean x - mean y)^2 - mean (x - y)^2
    return max(0.0, 1 - distance / float(spread))


def _decision_output(pairs: Sequence[_Pair]) -> _Pair | None:
    """The output that holds class scores, if one does: the first, or one named for it."""
    named = [p for p in pairs[1:] if any(word in p.name.lower() for word in _SCORE_WORDS)]
    return next((pair for pair in (*pairs[:1], *named) if pair.is_scores), None)


def _is_scores(name: str, arrays: Sequence[Array]) -> bool:
    """Whether float arrays look like class scores: one row per call, or distributions."""
    sizes = {a.shape[-1] if a.ndim else 1 for a in arrays}
    if len(sizes) != 1 or any(a.size == 0 or not np.isfinite(a).all() for a in arrays):
        return False
    classes = sizes.pop()
    rows = score_rows(arrays)
    if classes == 1:
        return all(a.size == 1 for a in arrays) and is_unit(rows)
    if classes > _MOST_CLASSES:
        return False
    if is_unit(rows) and np.allclose(rows.sum(axis=1), 1, atol=1e-3):
        return True
    if any(a.ndim > 2 for a in arrays):  # scores per position, if the name or the layout tells
        return "logit" in name.lower() or (classes >= _VOCABULARY and _is_time_first(arrays))
    unit_length = np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)
    return not (unit_length and (rows < 0).any())  # those are embeddings


def _scores_beside_boxes(pair: _Pair) -> _Pair | None:
    """The channels in 0..1 of a [1, …, …] output whose other channels are far larger."""
    arrays = [a for a, _ in pair.calls]
    if not pair.is_float or pair.broken or any(a.ndim != 3 or a.size == 0 for a in arrays):
        return None
    axis = 1 if arrays[0].shape[1] < arrays[0].shape[2] else 2
    if len({a.shape[axis] for a in arrays}) != 1:
        return None
    low = np.min([a.min(axis=(0, 3 - axis)) for a in arrays], axis=0)
    high = np.max([a.max(axis=(0, 3 - axis)) for a in arrays], axis=0)
    scores = (low >= 0) & (high <= 1)
    if not (scores.any() and high[scores].max() >= _A_SCORE and high.max() >= _A_PIXEL):
        return None
    chosen = np.flatnonzero(scores)
    source, candidate = (
        [[np.take(a, chosen, axis) for a in calls] for calls in samples]
        for samples in (pair.source, pair.candidate)
    )
    return _Pair(f"{pair.name} (scores)", source, candidate, together=True)


def _is_time_first(arrays: Sequence[Array]) -> bool:
    """Whether arrays are [time, batch of 1, …], as networks trained with CTC put it out."""
    return all(a.ndim == 3 and a.shape[1] == 1 for a in arrays) and max(map(len, arrays)) > 1


def _decisions(pair: _Pair) -> tuple[float, float]:
    """Share of equal decisions, and share that changed although the source was no tie."""
    sources, candidates = zip(*pair.calls, strict=True)
    before = probabilities(score_rows(sources))
    after = score_rows(candidates, in_unit=is_unit(before))
    equal = before.argmax(axis=1) == after.argmax(axis=1)
    return float(np.mean(equal)), float(np.mean(~equal & (_margin(before) > TIE)))


def _margin(rows: Floats) -> Floats:
    best_two = np.partition(rows, -2, axis=1)[:, -2:]
    return np.asarray(best_two[:, 1] - best_two[:, 0])


def _is_classes(labels: Array | None) -> bool:
    return labels is not None and np.asarray(labels.ravel()[0]).dtype.kind in "iub"


def _measure(metric: Metric, pair: _Pair, labels: Array | None) -> tuple[float, float]:
    if labels is None and metric.needs_labels:
        raise DataError(
            f"metric {metric.name!r} needs labels, and the data has none",
            where="--metric",
            remedy="add an array `labels` to the .npz, or `label` to each line of the .jsonl",
        )
    if labels is None:
        source, candidate = [_rows(s) for s in pair.source], [_rows(s) for s in pair.candidate]
        return metric.function(source, source), metric.function(candidate, source)
    references = [np.asarray(label) for label in labels]
    source, candidate = (
        [_prediction(calls, label) for calls, label in zip(samples, references, strict=True)]
        for samples in (pair.source, pair.candidate)
    )
    return metric.function(source, references), metric.function(candidate, references)


def _prediction(calls: Sequence[Array], label: Array) -> Array:
    """A sample's prediction: every call's where it has a label per call, else the last one's."""
    return _rows(calls) if len(calls) > 1 and label.size == len(calls) else calls[-1]


def _rows(calls: Sequence[Array]) -> Array:
    return np.concatenate([a.reshape(-1, a.shape[-1] if a.ndim else 1) for a in calls])


def _neighbours(pair: _Pair) -> float | None:
    mine, other = [_joined(s) for s in pair.source], [_joined(s) for s in pair.candidate]
    if not pair.is_float or len(mine) < 3 or len({a.size for a in (*mine, *other)}) != 1:
        return None
    return _round(same_nearest(other, mine))


def _round(value: float) -> float:
    """Six significant digits: what a record needs, and the same wherever sums round alike."""
    return float(f"{value:.6g}")
