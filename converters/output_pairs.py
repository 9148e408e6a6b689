"""One output of source and candidate side by side: what kind it is, and how alike they are.

See :mod:`converters.compare` for what is compared, and why.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from converters.dataset import Array, Outputs
from converters.metrics.classification import Floats, is_unit, probabilities, score_rows
from converters.metrics.similarity import cosine_similarity, mean_cosine

SampleOutputs = tuple[Outputs, ...]
EMBEDDING_TASKS = frozenset({"feature-extraction", "embedding", "sentence-similarity"})
TIE = 0.01
_FEW = 8
_MOST_CLASSES, _VOCABULARY = 10_000, 1000
_A_SCORE, _A_PIXEL = 0.05, 10.0


@dataclass(frozen=True)
class OutputPair:
    """One output of source and candidate.

    Attributes:
        name: The output's name.
        source: Sample -> call -> array of the source.
        candidate: The same of the candidate.
        together: Compare all samples as one vector, where most hold next to nothing.
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
        """Whether it holds floating-point numbers."""
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
        """Whether it holds class scores."""
        return self.is_float and _looks_like_scores(self.name, [a for a, _ in self.calls])

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
            return float(np.mean([_equal(a, b) if a.size else 1.0 for a, b in self.calls]))
        mine, other = [joined(s) for s in self.source], [joined(s) for s in self.candidate]
        if self.measure == "concordance":
            return _concordance(joined(mine), joined(other))
        if self.is_scores and max(a.size for a, _ in self.calls) < _FEW:
            sources, candidates = zip(*self.calls, strict=True)
            rows = score_rows(sources)
            in_unit = is_unit(rows)
            return cosine_similarity(rows, score_rows(candidates, in_unit=in_unit))
        if self.together:
            return cosine_similarity(joined(mine), joined(other))
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


def changed_decisions(pair: OutputPair) -> tuple[float, float]:
    """Share of equal decisions, and share that changed although the source was no tie."""
    sources, candidates = zip(*pair.calls, strict=True)
    before = probabilities(score_rows(sources))
    after = score_rows(candidates, in_unit=is_unit(before))
    equal = before.argmax(axis=1) == after.argmax(axis=1)
    return float(np.mean(equal)), float(np.mean(~equal & (_margin(before) > TIE)))


def _margin(rows: Floats) -> Floats:
    best_two = np.partition(rows, -2, axis=1)[:, -2:]
    return np.asarray(best_two[:, 1] - best_two[:, 0])


def scores_beside_boxes(pair: OutputPair) -> OutputPair | None:
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
    return OutputPair(f"{pair.name} (scores)", source, candidate, together=True)


def output_arrays(samples: Sequence[SampleOutputs], name: str, task: str) -> list[list[Array]]:
    """One output of every call of every sample, pooled where the task makes it an embedding."""
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


def _equal(a: Array, b: Array) -> float:
    """Share of equal elements; kernels round ties to codes of 8 bits up or down as they like."""
    if a.dtype in (np.int8, np.uint8):
        return float(np.mean(np.abs(a.astype(np.int16) - b.astype(np.int16)) <= 1))
    return float(np.mean(a == b))


def joined(arrays: Sequence[Array]) -> Array:
    """All elements of some arrays in one vector."""
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


def joined_rows(calls: Sequence[Array]) -> Array:
    """All last-axis rows of some arrays as one matrix."""
    return np.concatenate([a.reshape(-1, a.shape[-1] if a.ndim else 1) for a in calls])


def _looks_like_scores(name: str, arrays: Sequence[Array]) -> bool:
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


def _is_time_first(arrays: Sequence[Array]) -> bool:
    """Whether arrays are [time, batch of 1, …], as networks trained with CTC put it out."""
    return all(a.ndim == 3 and a.shape[1] == 1 for a in arrays) and max(map(len, arrays)) > 1
