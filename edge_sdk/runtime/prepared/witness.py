"""What a prepared graph computed when it was found right, to compare with at every load.

The golden case decides once, after preparing, within the tolerance that other CPUs
need. A load then only asks whether this machine still computes what it did, which a few tokens
tell: a tolerance that only threads and rounding need, at a fraction of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import GoldenCase
from edge_sdk.errors import EngineError
from edge_sdk.runtime.arrays import read_arrays
from edge_sdk.runtime.engine import Session

if TYPE_CHECKING:
    from edge_sdk.runtime.engine import Array

TOKENS = 4
"""More than one, or attention would have nothing to choose from."""
_VALUES = 256
# Root mean square of the differences, as a share of the values': activations in int8
# turn a last bit here and there into a step.
_TOLERANCE = 0.02


def testify(session: Session, case: GoldenCase, blobs: BlobStore) -> tuple[float, ...]:
    """Some of the logits after the first tokens of a decoder's golden case.

    Raises:
        EngineError: The engine failed.
        BundleError: The case's arrays are missing.
    """
    feeds = {name: np.array(value) for name, value in read_arrays(case.inputs, blobs).items()}
    logits = session.run(_shortened(feeds))["logits"].reshape(-1)
    return tuple(float(value) for value in logits[:: max(1, len(logits) // _VALUES)])


def compare(found: tuple[float, ...], expected: tuple[float, ...]) -> None:
    """Compares with what was computed when the graph was prepared.

    Raises:
        EngineError: It is something else.
    """
    new, old = np.array(found), np.array(expected)
    error = np.sqrt(np.mean((new - old) ** 2)) if new.shape == old.shape else np.inf
    if not error <= _TOLERANCE * np.sqrt(np.mean(old**2)):  # NaN is as wrong as can be
        raise EngineError("the graph does not compute any more what it did when it was prepared")


def _shortened(feeds: dict[str, Array]) -> dict[str, Array]:
    """The first tokens of a prompt, and the logits after the last of them."""
    ids = feeds["input_ids"][:, :TOKENS]
    count = ids.shape[1]
    return feeds | {
        "input_ids": np.ascontiguousarray(ids),
        "seqlens_k": np.full_like(feeds["seqlens_k"], count - 1),
        "total_sequence_length": np.full_like(feeds["total_sequence_length"], count),
        "logits_at": np.array([count - 1], np.int64),
    }
