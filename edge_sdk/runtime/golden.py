"""The self-test: golden inputs through the loaded graphs, compared with golden outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import GoldenCase
from edge_sdk.errors import BundleError, EngineError
from edge_sdk.runtime.arrays import read_array, read_arrays
from edge_sdk.runtime.engine import Session


class Deviation(msgspec.Struct, frozen=True):
    """Where an output is furthest from its golden value.

    Attributes:
        graph: The graph that was run.
        output: Its output.
        error: Absolute difference at the worst element.
        share: That difference as a share of what is tolerated there; above 1 fails.
    """

    graph: str
    output: str
    error: float
    share: float


class SelfTest(msgspec.Struct, frozen=True):
    """Result of a passed self-test.

    Attributes:
        cases: Number of golden cases run.
        worst: The largest deviation; ``None`` where the variant has no cases.
    """

    cases: int
    worst: Deviation | None


def self_test(
    cases: Sequence[GoldenCase], sessions: Mapping[str, Session], blobs: BlobStore
) -> SelfTest:
    """Runs every golden case and compares every output.

    Raises:
        EngineError: An output deviates by more than its tolerance, or the engine failed.
        BundleError: A case does not fit the graphs, or its arrays are missing.
    """
    worst: Deviation | None = None
    for case in cases:
        if case.graph not in sessions:
            raise BundleError("names no graph of the variant", where=f"golden {case.graph!r}")
        inputs = {name: np.array(value) for name, value in read_arrays(case.inputs, blobs).items()}
        outputs = sessions[case.graph].run(inputs)
        for name, ref in case.outputs.items():
            if name not in outputs:
                raise BundleError("names no output of the graph", where=f"golden {name!r}")
            kept = outputs[name][..., :: case.stride] if case.stride > 1 else outputs[name]
            found = _deviation(case, name, kept, read_array(ref, blobs))
            if worst is None or found.share > worst.share:
                worst = found
    if worst is not None and worst.share > 1:
        raise EngineError(
            f"differs from the golden value by {worst.error:.3g}, "
            f"{worst.share:.3g} times the tolerance",
            where=f"self-test, graph {worst.graph!r}, output {worst.output!r}",
            remedy="this machine computes something else than was verified: "
            "check the engine's version and providers",
        )
    return SelfTest(len(cases), worst)


def _deviation(
    case: GoldenCase, output: str, value: NDArray[np.generic], golden: NDArray[np.generic]
) -> Deviation:
    if value.shape != golden.shape:
        raise EngineError(
            f"has shape {value.shape} instead of {golden.shape}",
            where=f"self-test, graph {case.graph!r}, output {output!r}",
        )
    found, expected = value.astype(np.float64), golden.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(found - expected)
        share = error / (case.atol + case.rtol * np.abs(expected))
    # Equal infinities and NaN where NaN is expected agree; any other NaN is as wrong as can be.
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    share = np.where(same, 0.0, np.nan_to_num(share, nan=np.inf))
    if not share.size:
        return Deviation(case.graph, output, 0.0, 0.0)
    at = np.unravel_index(int(share.argmax()), share.shape)
    return Deviation(case.graph, output, float(error[at]) if share[at] else 0.0, float(share[at]))
