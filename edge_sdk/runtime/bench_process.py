"""The fresh process behind :func:`edge_sdk.runtime.bench.fresh_start`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from edge_sdk.runtime import process
from edge_sdk.runtime.bench import FreshStart, Target

RUNS = 3


def main(settings: str) -> None:
    """Takes path, profile, threads, inputs and their names as JSON; prints a FreshStart."""
    path, profile, threads, inputs, names = json.loads(settings)
    with np.load(inputs) as archive:
        arrays = [archive[key] for key in archive.files]
    call = {
        name: array.astype(object) if array.dtype.kind == "U" else array
        for name, array in zip(names, arrays, strict=True)
    }
    started = time.perf_counter()
    run = Target(Path(path), profile).open(threads, verify=True)
    loaded = time.perf_counter()
    run(call)
    first = time.perf_counter()
    for _ in range(RUNS - 1):
        run(call)
    found = FreshStart(
        load_ms=(loaded - started) * 1e3,
        first_run_ms=(first - loaded) * 1e3,
        peak_rss_bytes=process.peak_rss(),
        rss_bytes=process.rss(),
        pss_bytes=process.pss(),
    )
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main(sys.argv[1])
