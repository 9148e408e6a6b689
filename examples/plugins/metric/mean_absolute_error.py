"""Mean absolute error, for regression: smaller is better, and 5 % more is allowed."""

from __future__ import annotations

import numpy as np

from converters.metrics import Metric, Sequences
from edge_sdk.errors import DataError


def mean_absolute_error(predictions: Sequences, references: Sequences) -> float:
    """The mean over samples of each one's mean |prediction - reference|.

    Args:
        predictions: The model's output for each sample.
        references: As many numbers for each, from the data's ``labels``.

    Raises:
        DataError: A label has another number of elements than the output.
    """
    errors = []
    for predicted, expected in zip(predictions, references, strict=True):
        if expected.size != predicted.size or expected.dtype.kind not in "fiu":
            raise DataError(
                f"{expected.size} of type {expected.dtype} do not fit {predicted.size} numbers",
                where="labels",
                remedy="give numbers, one row per sample, shaped as the output",
            )
        difference = np.subtract(predicted.ravel(), expected.ravel(), dtype=np.float64)
        errors.append(np.abs(difference).mean())
    return float(np.mean(errors))


MAE = Metric("mae", mean_absolute_error, higher_is_better=False, relative=True, max_drop=0.05)
