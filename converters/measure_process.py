"""The fresh process that measures a graph's memory; see :func:`converters.measure.footprint`.

Imports as little as a device would: numpy and the engine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from edge_sdk.runtime import process
from edge_sdk.runtime.engine import SessionOptions, find_engine

RUNS = 3


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of a process that loaded a graph and ran it.

    Attributes:
        peak_rss_bytes: Largest resident memory, loading included.
        pss_bytes: Resident memory afterwards, shared pages divided among their users.
        first_run_ms: From opening the graph to the first result.
    """

    peak_rss_bytes: int
    pss_bytes: int
    first_run_ms: float


def main(arguments: Sequence[str]) -> None:
    """Takes engine, graph file, ``.npz`` of inputs and options as JSON; prints a Footprint."""
    engine, graph, inputs, settings = arguments
    options = msgspec.json.decode(settings, type=SessionOptions)
    with np.load(inputs) as archive:
        feeds = {name: archive[name] for name in archive.files}
    feeds = {name: a.astype(object) if a.dtype.kind == "U" else a for name, a in feeds.items()}
    started = time.perf_counter()
    session = find_engine(engine).open(Path(graph), options)
    session.run(feeds)
    first_run_ms = (time.perf_counter() - started) * 1e3
    for _ in range(RUNS - 1):
        session.run(feeds)
    found = Footprint(
        peak_rss_bytes=process.peak_rss(), pss_bytes=process.pss(), first_run_ms=first_run_ms
    )
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main(sys.argv[1:])
