"""Measures a candidate beside what serves: at low priority, and within what memory is left.

In a process of its own, which the kernel ends first where memory runs out, so that neither a
candidate that is too large nor one that crashes its engine does harm to what serves.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_sdk.bundle.measurements import DeviceFigures
from edge_sdk.errors import EngineError

NICENESS = 19
_PATIENCE_S = 600.0  # beyond the time to measure, for loading and packing on a slow board
_POLL_S = 0.2


@dataclass(frozen=True)
class Question:
    """What to measure.

    Attributes:
        bundle: The candidate's bundle.
        seconds: For how long.
        threads: Of the session; 0 for the profile's.
        memory_limit: Bytes that the process may use; ``None`` for no limit.
    """

    bundle: Path
    seconds: float
    threads: int = 0
    memory_limit: int | None = None


def measure(question: Question, cancelled: Callable[[], bool] = lambda: False) -> DeviceFigures:
    """Measures a candidate in a process of its own.

    Args:
        question: What to measure.
        cancelled: Asked all the time; then the process is ended.

    Returns:
        The figures, or why there are none.

    Raises:
        EngineError: It was cancelled.
    """
    settings = json.dumps(
        [str(question.bundle), question.seconds, question.threads, question.memory_limit]
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_sdk.runtime.trial", settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + question.seconds + _PATIENCE_S
    while True:
        with suppress(subprocess.TimeoutExpired):
            out, err = process.communicate(timeout=_POLL_S)
            break
        if cancelled() or time.monotonic() > deadline:
            process.kill()
            process.communicate()
            if cancelled():
                raise EngineError("the trial was cancelled", where=str(question.bundle))
            return DeviceFigures(error=f"took longer than {_PATIENCE_S:.0f} s")
    if process.returncode:
        return DeviceFigures(error=_ending(process.returncode, err.decode(errors="replace")))
    return msgspec.json.decode(out, type=DeviceFigures)


def _ending(code: int, said: str) -> str:
    """Why a process ended, in a sentence."""
    if code == -signal.SIGKILL:
        return "was killed, as the kernel does where memory runs out"
    if code < 0:
        return f"crashed ({signal.Signals(-code).name})"
    return (said.strip() or f"ended with code {code}").splitlines()[-1]


def _yield_to_others() -> None:
    """Leaves the processor and, where it is short, the memory to what serves."""
    os.nice(NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def main(settings: str) -> None:
    """Takes a question as JSON; prints a DeviceFigures."""
    _yield_to_others()
    import numpy as np

    from edge_sdk.bundle.reader import open_bundle
    from edge_sdk.runtime import bench, process
    from edge_sdk.runtime.model import load

    path, seconds, threads, limit = json.loads(settings)
    variant = open_bundle(path).variants[0]
    if limit is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    started = time.perf_counter()
    model = load(path, variant.profile, memory_limit=limit, threads=threads or None)
    loaded = time.perf_counter()
    model.settle(_PATIENCE_S / 2)  # an engine that is compiled first is what is asked about
    model.self_test()
    timed = bench.Timed(model.run, bench.golden_calls(variant))
    bench.in_turns([timed], seconds)
    p50, p95 = (float(v) * 1e3 for v in np.percentile(timed.times, (50, 95)))
    found = DeviceFigures(
        p50_ms=p50,
        p95_ms=p95,
        calls=len(timed.times),
        load_ms=(loaded - started) * 1e3,
        peak_rss_bytes=process.peak_rss(),
        notes=model.notes,
    )
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Exception as error:  # noqa: BLE001 - a process' edge: its last line says why
        sys.exit(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
