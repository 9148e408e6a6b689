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

import math
from collections.abc import Sequence

import numpy as np

from converters.dataset import Array, Dataset, roll, zero_states
from converters.metrics import Metric, find_metric
from converters.metrics.similarity import same_nearest
from converters.output_pairs import (
    EMBEDDING_TASKS,
    OutputPair,
    SampleOutputs,
    changed_decisions,
    joined,
    joined_rows,
    output_arrays,
    scores_beside_boxes,
)
from edge_sdk.bundle.record import Agreement, State
from edge_sdk.errors import DataError, EdgeSdkError
from edge_sdk.runtime.engine import Session

__all__ = ["SampleOutputs", "agreement", "run", "same"]

# Of an output's largest value; threads may add in another order.
REPEATED = 1e-3
_SCORE_WORDS = ("logit", "prob", "score", "softmax", "class", "label")


def run(session: Session, dataset: Dataset, states: Sequence[State] = ()) -> list[SampleOutputs]:
    """All outputs of every call of every sample, states rolled along each sequence."""
    initial = zero_states(session.inputs, states)
    return [tuple(roll(session, sample, states, initial)) for sample in dataset.samples]


def same(one: SampleOutputs, other: SampleOutputs) -> bool:
    """Whether two runs of one graph gave the same arrays, but for the order of additions."""
    pairs = [(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a]
    return all(_close(a, b) for a, b in pairs if isinstance(a, np.ndarray))


def _close(one: Array, other: Array) -> bool:
    if one.dtype.kind != "f" or one.shape != other.shape:
        return np.array_equal(one, other)
    largest = np.abs(one[np.isfinite(one)]).max(initial=0)
    return np.allclose(one, other, rtol=0, atol=REPEATED * largest, equal_nan=True)


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
        OutputPair(name, output_arrays(source, name, task), output_arrays(candidate, name, task))
        for name in source[0][0]
    ]
    first = next((pair for pair in pairs if pair.is_float), pairs[0])
    scores = None if task in EMBEDDING_TASKS else _decision_output(pairs)
    pairs += [hidden for pair in pairs if (hidden := scores_beside_boxes(pair))]
    drop, drop_of = _worst(pairs, first)
    top1 = None
    if scores and not scores.broken:
        top1, changed = changed_decisions(scores)
        if changed > drop:
            drop, drop_of = changed, "1 - top1 agreement"
    if metric is None and scores and labels is not None and _are_classes(labels, scores):
        metric = find_metric("top1")
    values = {}
    if metric and not any(pair.broken for pair in pairs):
        before, after = _measure(metric, scores or pairs[0], labels)
        if math.isfinite(after):
            values[metric.name] = before, after
            drop, drop_of = metric.drop(before, after), f"drop of {metric.name}"
        else:
            drop, drop_of = 1.0, f"{metric.name} of {after}"
    return Agreement(
        samples=len(source),
        cosine=rounded(first.similarity),
        max_error=rounded(max(pair.max_error for pair in pairs)),
        drop=rounded(drop),
        drop_of=drop_of,
        top1=None if top1 is None else rounded(top1),
        nearest=_neighbours(first) if task in EMBEDDING_TASKS else None,
        metrics={name: (rounded(a), rounded(b)) for name, (a, b) in values.items()},
    )


def _worst(pairs: Sequence[OutputPair], first: OutputPair) -> tuple[float, str]:
    """The drop of the output that agrees least, and what it is."""
    worst = min(pairs, key=lambda pair: pair.similarity)
    drop_of = f"1 - {worst.measure}"
    if worst.broken:
        return 1.0, f"output {worst.name} {worst.broken}"
    return 1 - worst.similarity, drop_of if worst is first else f"{drop_of} of {worst.name}"


def _decision_output(pairs: Sequence[OutputPair]) -> OutputPair | None:
    """The output that holds class scores, if one does: the first, or one named for it."""
    named = [p for p in pairs[1:] if any(word in p.name.lower() for word in _SCORE_WORDS)]
    return next((pair for pair in (*pairs[:1], *named) if pair.is_scores), None)


def _are_classes(labels: Array, scores: OutputPair) -> bool:
    """Whether labels are one class number for each row of scores."""
    return all(
        np.asarray(label).dtype.kind in "iub"
        and len(joined_rows([_prediction(calls, np.asarray(label))])) == np.size(label)
        for calls, label in zip(scores.source, labels, strict=True)
    )


def _measure(metric: Metric, pair: OutputPair, labels: Array | None) -> tuple[float, float]:
    if labels is None and metric.needs_labels:
        raise DataError(
            f"metric {metric.name!r} needs labels, and the data has none",
            where="--metric",
            remedy="add an array `labels` to the .npz, or `label` to each line of the .jsonl",
        )
    if labels is None:
        source, candidate = (
            [joined_rows(s) for s in pair.source],
            [joined_rows(s) for s in pair.candidate],
        )
        references = source
    else:
        references = [np.asarray(label) for label in labels]
        source, candidate = (
            [_prediction(calls, label) for calls, label in zip(samples, references, strict=True)]
            for samples in (pair.source, pair.candidate)
        )
    before, after = (_value(metric, found, references) for found in (source, candidate))
    if not math.isfinite(before):
        raise DataError(
            f"metric {metric.name!r} gives {before} for the source itself",
            where="--metric",
            remedy="check that labels and outputs are what this metric takes",
        )
    return before, after


def _value(metric: Metric, predictions: Sequence[Array], references: Sequence[Array]) -> float:
    try:
        return float(metric.function(predictions, references))
    except EdgeSdkError:
        raise
    except Exception as error:  # edge: anyone's function may raise anything
        raise DataError(
            f"metric {metric.name!r} failed: {type(error).__name__}: {error}", where="--metric"
        ) from error


def _prediction(calls: Sequence[Array], label: Array) -> Array:
    """A sample's prediction: every call's where it has a label per call, else the last one's."""
    return joined_rows(calls) if len(calls) > 1 and label.size == len(calls) else calls[-1]


def _neighbours(pair: OutputPair) -> float | None:
    mine, other = [joined(s) for s in pair.source], [joined(s) for s in pair.candidate]
    if not pair.is_float or len(mine) < 3 or len({a.size for a in (*mine, *other)}) != 1:
        return None
    return rounded(same_nearest(other, mine))


def rounded(value: float) -> float:
    """Six significant digits: what a record needs, and the same wherever sums round alike."""
    return float(f"{value:.6g}")
