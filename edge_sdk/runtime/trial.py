"""Measures a candidate beside what serves: at low priority, and within what memory is left.

In a process of its own, which the kernel ends first where memory runs out, so that neither a
candidate that is too large nor one that crashes its engine does harm to what serves.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_sdk.bundle.measurements import DeviceFigures
from edge_sdk.errors import EngineError

NICENESS = 19
_PATIENCE_S = 600.0  # beyond the time to measure, for loading and packing on a slow board
_POLL_S = 0.2
_GRACE_S = 2.0  # for a process to end what it started itself
_PR_SET_PDEATHSIG = 1


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
        [
            str(question.bundle),
            question.seconds,
            question.threads,
            question.memory_limit,
            os.getpid(),
        ]
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_sdk.runtime.trial", settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + question.seconds + _PATIENCE_S
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                out, err = process.communicate(timeout=_POLL_S)
                break
            if cancelled():
                raise EngineError("the trial was cancelled", where=str(question.bundle))
            if time.monotonic() > deadline:
                return DeviceFigures(error=f"took longer than {_PATIENCE_S:.0f} s")
    finally:
        if process.poll() is None:
            _end(process)
    if process.returncode:
        return DeviceFigures(error=_ending(process.returncode, err.decode(errors="replace")))
    return msgspec.json.decode(out, type=DeviceFigures)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process; asked first, it ends what it started itself."""
    process.terminate()
    try:
        process.communicate(timeout=_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _ending(code: int, said: str) -> str:
    """Why a process ended, in a sentence."""
    if code == -signal.SIGKILL:
        return "was killed, as the kernel does where memory runs out"
    if code < 0:
        return f"crashed ({signal.Signals(-code).name})"
    return (said.strip() or f"ended with code {code}").splitlines()[-1]


def _depend_on(parent: int) -> None:
    """Ends this process, by way of every ``finally``, when it is told to or its parent dies.

    What it compiles in a process apart (:mod:`edge_sdk.runtime.compiled`) ends with it.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before that
        sys.exit(128 + signal.SIGTERM)


def _yield_to_others() -> None:
    """Leaves the processor and, where it is short, the memory to what serves."""
    os.nice(NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def main(settings: str) -> DeviceFigures:
    """Takes a question as JSON and answers it."""
    path, seconds, threads, limit, parent = json.loads(settings)
    _depend_on(parent)
    _yield_to_others()
    from edge_sdk.bundle.reader import open_bundle
    from edge_sdk.runtime import bench, process
    from edge_sdk.runtime.opening import load

    variant = open_bundle(path).variants[0]
    if limit is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    started = time.perf_counter()
    with load(path, variant.profile, memory_limit=limit, threads=threads or None) as model:
        loaded = time.perf_counter()
        if not model.settle(_PATIENCE_S / 2):  # what serves later is what is asked about
            raise EngineError("; ".join(model.notes))
        model.self_test()
        calls = bench.golden_calls(variant)
        if variant.record.generation is None:
            timed = bench.Timed(model.run, calls)
            bench.in_turns([timed], seconds)
            found = _figures(timed.times)
        else:
            found = _answers(model.time_answers(calls[0]["input_ids"].ravel().tolist(), seconds))
        return msgspec.structs.replace(
            found,
            load_ms=(loaded - started) * 1e3,
            peak_rss_bytes=process.peak_rss(),
            notes=model.notes,
        )


def _figures(times: Sequence[float]) -> DeviceFigures:
    import numpy as np

    p50, p95 = (float(v) * 1e3 for v in np.percentile(times, (50, 95)))
    return DeviceFigures(p50_ms=p50, p95_ms=p95, calls=len(times))


def _answers(times: Sequence[tuple[float, float]]) -> DeviceFigures:
    """Of a dialogue model, a call is an answer that stands for all."""
    from edge_sdk.runtime.generation.timing import ANSWER

    whole = _figures([first + ANSWER * step for first, step in times])
    first, step = (statistics.median(column) for column in zip(*times, strict=True))
    return msgspec.structs.replace(whole, ttft_ms=first * 1e3, tokens_per_second=1 / step)


if __name__ == "__main__":
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what engines print is no part of the answer
    try:
        found = main(sys.argv[1])
    except Exception as error:  # noqa: BLE001 - a process' edge: its last line says why
        sys.exit(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    with answer:
        answer.write(msgspec.json.encode(found))
