"""What the float rewrites do to a real graph: time, nodes, speed and difference of the outputs."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.encoder import LENGTHS, exported, tokens
from benchmarks.result import Outcome, Row
from converters.materialize import open_path, save
from converters.measure import latency
from converters.passes.base import Context, build, each_graph
from converters.recipes import prepare
from converters.source import open_source
from device_profiles.loader import load_profile
from edge_sdk.bundle.record import Recipe
from edge_sdk.runtime.engine import SessionOptions


def run(quick: bool) -> Outcome:
    """Applies the passes one by one to MiniLM-L6 and compares with the source."""
    source = open_source(exported() / "model.onnx")
    steps = prepare(load_profile("x86-64"))
    model = source.model.clone()
    before, seconds = sum(map(len, each_graph(model.graph))), 0.0
    for graph_pass in build(Recipe(name="prepare", steps=steps), Context()):
        started = time.perf_counter()
        model = graph_pass(model).model
        seconds += time.perf_counter() - started
    after = sum(map(len, each_graph(model.graph)))
    options, calls = SessionOptions(threads=1), {n: tokens(n) for n in LENGTHS}
    with tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder:
        sessions = {
            "source": open_path(source.path, options),
            "rewritten": open_path(save(model, Path(folder)), options),
        }
        budget = 1.0 if quick else 10.0
        speedups = {
            length: latency(sessions, [call], budget)["rewritten"].speedup
            for length, call in calls.items()
        }
        [expected], [found] = (s.run(calls[LENGTHS[0]]).values() for s in sessions.values())
    error = float(np.abs(expected.astype(float) - found.astype(float)).max())
    return Outcome(
        rows=(
            Row(
                f"{len(steps)} float rewrites of MiniLM-L6, fp32 against fp32, one thread, "
                f"{' / '.join(map(str, LENGTHS))} tokens",
                f"{before} to {after} nodes in {seconds:.1f} s, "
                f"{' / '.join(f'{value:.2f}×' for value in speedups.values())} the speed, "
                f"outputs differ by at most {error:.1e}",
            ),
        ),
        figures={
            "nodes_before": before,
            "nodes_after": after,
            "seconds": round(seconds, 2),
            "max_error": error,
            **{f"speedup_{length}": round(value, 3) for length, value in speedups.items()},
        },
    )
