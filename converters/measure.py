"""Measures latency, memory and the machine itself.

Latencies are compared as ratios: every round runs the source and all
candidates on the same input in turn, so that what disturbs the machine for
longer than a round disturbs all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np

from converters.dataset import Feeds
from converters.measure_process import Footprint
from device_profiles.machine import detect_machine
from edge_sdk.bundle.measurements import Machine
from edge_sdk.errors import EngineError
from edge_sdk.runtime.engine import Session, SessionOptions

MIN_ROUNDS, MAX_ROUNDS = 5, 2000
# A turn lasts at least this long: shorter ones would time the clock and cold caches.
TURN_SECONDS, MAX_REPEATS = 1e-3, 100


@dataclass(frozen=True)
class Latency:
    """One session's latency.

    Attributes:
        median_ms: Median time of one call.
        speedup: Median over rounds of the first session's time over this one's.
        rounds: Number of rounds.
    """

    median_ms: float
    speedup: float
    rounds: int


def latency(
    sessions: Mapping[str, Session], calls: Sequence[Feeds], budget_seconds: float
) -> dict[str, Latency]:
    """Times sessions against the first of them, in turn.

    Args:
        sessions: Name -> session, the baseline first; open them with equal threads.
        calls: Inputs of single calls, states included; rounds cycle through them.
        budget_seconds: Stop after this long, but not before five rounds.

    Raises:
        EngineError: A session failed.
    """
    names = list(sessions)
    warm = {name: _warm_up(session, calls) for name, session in sessions.items()}
    repeats = max(1, min(MAX_REPEATS, round(TURN_SECONDS / max(warm[names[0]], 1e-6))))
    times: dict[str, list[float]] = {name: [] for name in names}
    deadline = time.perf_counter() + budget_seconds
    for number in range(MAX_ROUNDS):
        if number >= MIN_ROUNDS and time.perf_counter() > deadline:
            break
        feeds = calls[number % len(calls)]
        first = number % len(names)  # nobody always follows the same neighbour's cache
        for name in names[first:] + names[:first]:
            times[name].append(_turn(sessions[name], feeds, repeats))
    base = np.asarray(times[names[0]])
    return {
        name: Latency(
            median_ms=float(np.median(taken)) * 1e3,
            speedup=float(np.median(base / np.asarray(taken))),
            rounds=len(taken),
        )
        for name, taken in times.items()
    }


def footprint(
    graph: Path, feeds: Feeds, options: SessionOptions | None = None, engine: str = "onnx"
) -> Footprint:
    """Loads and runs a graph in a fresh process and asks the kernel for its memory.

    Args:
        graph: The graph file; external data beside it.
        feeds: Inputs of one call, states included.
        options: How to open it.
        engine: Which runtime engine opens it.

    Raises:
        EngineError: The process failed; says what it printed last.
    """
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder:
        inputs = Path(folder) / "feeds.npz"
        plain = {name: a.astype(str) if a.dtype == object else a for name, a in feeds.items()}
        np.savez(inputs, allow_pickle=False, **plain)
        settings = json.dumps(asdict(options or SessionOptions()))
        command = ["converters.measure_process", engine, str(graph), str(inputs), settings]
        done = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, env=environment
        )
    if done.returncode != 0:
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        if done.returncode < 0:
            last = f"the engine ended the process by signal {-done.returncode}"
        raise EngineError(f"measuring memory in a fresh process failed: {last}", where=str(graph))
    return msgspec.json.decode(done.stdout, type=Footprint)


def peak_rss(graph: Path, feeds: Feeds, engine: str = "onnx") -> int:
    """Peak resident memory in bytes of a fresh process that loads and runs a graph."""
    return footprint(graph, feeds, engine=engine).peak_rss_bytes


def machine() -> Machine:
    """The machine measurements are made on."""
    found = detect_machine()
    return Machine(
        cpu=found.title,
        cores=found.cores,
        architecture=found.platform.architecture,
        engines={engine.name: engine.version for engine in found.engines},
    )


def _warm_up(session: Session, calls: Sequence[Feeds]) -> float:
    """Runs every call once (shapes allocate on first use); seconds of the quickest repeat."""
    for feeds in calls:
        session.run(feeds)
    return min(_turn(session, feeds, 1) for feeds in calls[:4])


def _turn(session: Session, feeds: Feeds, repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        session.run(feeds)
    return (time.perf_counter() - started) / repeats
