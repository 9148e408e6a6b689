"""What the process that compiles is asked."""

from __future__ import annotations

from edge_sdk.bundle.record import Frozen, GoldenCase
from edge_sdk.runtime.engine import SessionOptions

REFUSED = 3
"""Exit code where the engine said no; what it said is in the place's history."""


class Request(Frozen, frozen=True, kw_only=True):
    """What to compile.

    Attributes:
        engine: Its name.
        graph: The graph file.
        options: Of the sessions that will use the result.
        folder: Where the result goes.
        budget_s: Seconds that it may take.
        golden: What the result must compute.
        blobs: Where the golden cases' arrays are.
    """

    engine: str
    graph: str
    options: SessionOptions
    folder: str
    budget_s: float
    golden: tuple[GoldenCase, ...]
    blobs: str
