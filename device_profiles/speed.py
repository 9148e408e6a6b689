"""Measures how fast this machine reads memory and multiplies matrices, in under a second.

Both run in a process of their own, because a BLAS library fixes its number of threads
when it is loaded, and so that numpy stays out of the caller.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import msgspec

from edge_sdk.errors import WorkError

_SECONDS_EACH = 0.3
_MIB = 1024 * 1024
_GEMM_SIZE = 256
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Measured rates: reads by all cores together, fp32 GEMM by one core."""

    bandwidth_gb_per_s: float
    fp32_gflops_per_core: float


def measure_speed(*, cores: int, cache_bytes: int, memory_mib: int) -> Speed:
    """Measures this machine.

    Args:
        cores: Threads that read at the same time.
        cache_bytes: Size of the last level cache, 0 if unknown; the reads must not fit in it.
        memory_mib: Memory of the machine; an eighth of it is used at most.

    Raises:
        WorkError: The measuring process failed.
    """
    buffer_mib = max(64, 4 * cache_bytes // _MIB)
    buffer_mib = max(1, min(buffer_mib, memory_mib // 8))
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(cores), str(buffer_mib)],
        env={**os.environ, **_ONE_THREAD},
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise WorkError(
            f"measuring memory bandwidth failed: {done.stderr.decode(errors='replace').strip()}",
            remedy="check that numpy works: python -c 'import numpy'",
        )
    return msgspec.json.decode(done.stdout, type=Speed)


def bandwidth_gb_per_s(threads: int, buffer_mib: int) -> float:
    """Sustained read rate of all threads together, best of several rounds."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    # Ones, because the kernel maps untouched zeros to one and the same page. The maximum of
    # integers is the cheapest reduction that reads everything, so memory is what it waits for.
    parts = np.array_split(np.ones(buffer_mib * _MIB // 8, dtype=np.int64), threads)
    with ThreadPoolExecutor(threads) as pool:
        seconds = _best(lambda: list(pool.map(np.max, parts)))
    return buffer_mib * _MIB / seconds / 1e9


def fp32_gflops() -> float:
    """Sustained fp32 GEMM rate of this process's BLAS, best of several rounds."""
    import numpy as np

    matrix = np.ones((_GEMM_SIZE, _GEMM_SIZE), dtype=np.float32)
    out = np.empty_like(matrix)
    seconds = _best(lambda: np.matmul(matrix, matrix, out=out))
    return 2.0 * _GEMM_SIZE**3 / seconds / 1e9


def _best(work: Callable[[], object]) -> float:
    """Shortest of the runs that fit into the time, in seconds; at least three."""
    runs: list[float] = []
    end = time.perf_counter() + _SECONDS_EACH
    while len(runs) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        runs.append(time.perf_counter() - start)
    return min(runs)


if __name__ == "__main__":
    measured = Speed(
        bandwidth_gb_per_s=bandwidth_gb_per_s(int(sys.argv[1]), int(sys.argv[2])),
        fp32_gflops_per_core=fp32_gflops(),
    )
    sys.stdout.buffer.write(msgspec.json.encode(measured))
