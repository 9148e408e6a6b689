"""Packs the weights of a LiteRT file into a file, in a process of its own.

LiteRT's libraries of accelerators end a process whose CPU lacks what they were built for (atomics
of ARMv8.1): a program of its own may end, the one that serves may not. What a packing needs of
memory goes with it, too.

Run as ``python -m edge_sdk.runtime.prepared.weight_process FILE WEIGHTS THREADS``, with the
graph's record on stdin.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from pathlib import Path

import msgspec

from edge_sdk.bundle.record import Graph
from edge_sdk.errors import EngineError, WorkError
from edge_sdk.runtime.engine import SessionOptions
from edge_sdk.runtime.engines.litert_shared import open_shared

PATIENCE = 600.0  # seconds
PR_SET_PDEATHSIG = 1


def pack(path: Path, weights: Path, graph: Graph, options: SessionOptions) -> None:
    """Has the weights packed.

    Args:
        path: The ``.tflite`` file.
        weights: Where to.
        graph: The file's record.
        options: Those of the sessions that will use it.

    Raises:
        EngineError: It could not be done; the message is the process's last word.
        WorkError: It was ended before it was done; another time it may be.
    """
    import subprocess

    command = [sys.executable, "-m", __name__, str(path), str(weights), str(options.threads)]
    try:
        done = subprocess.run(
            command, input=msgspec.json.encode(graph), capture_output=True, timeout=PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkError(f"packing did not work: {error}") from error
    if done.returncode == -signal.SIGKILL:  # by the kernel for want of memory, or by a person
        raise WorkError("packing was ended by SIGKILL")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise EngineError(f"LiteRT's libraries do not run on this CPU: {name} while packing")
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise EngineError(f"packing failed: {' '.join(last)}")


def main() -> None:
    """Packs what the arguments name; not longer than the process lives that wants it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    path, weights, threads = sys.argv[1:]
    graph = msgspec.json.decode(sys.stdin.buffer.read(), type=Graph)
    options = SessionOptions(threads=int(threads))
    open_shared(Path(path), Path(weights), graph.inputs, graph.outputs, options)


if __name__ == "__main__":
    main()
