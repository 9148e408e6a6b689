"""What importing the device side costs: time and resident memory of fresh processes."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import numpy as np

from benchmarks.result import Outcome, Row

REPEATS = 15
MODULES = {
    "python": "",
    "edge_sdk": "import edge_sdk",
    "edge_sdk.load": "from edge_sdk import load",
    "onnxruntime": "import numpy, onnxruntime",
    "all": "from edge_sdk import load; import onnxruntime",
}
PROBE = """
import json, time
from pathlib import Path
started = time.perf_counter()
{code}
milliseconds = (time.perf_counter() - started) * 1e3
status = Path("/proc/self/status").read_text()
kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
print(json.dumps([milliseconds, kib / 1024]))
"""


def run(quick: bool) -> Outcome:
    """Imports in fresh processes, in turn."""
    samples: dict[str, list[list[float]]] = {name: [] for name in MODULES}
    for _ in range(3 if quick else REPEATS):
        for name, code in MODULES.items():
            done = subprocess.run(
                [sys.executable, "-c", PROBE.format(code=code)], capture_output=True, check=True
            )
            samples[name].append(msgspec.json.decode(done.stdout, type=list[float]))
    # The quickest and the leanest of all: what else the machine does only adds.
    best = {name: np.min(values, axis=0) for name, values in samples.items()}
    milliseconds, memory = best["edge_sdk.load"] - best["python"]
    whole = best["all"]
    return Outcome(
        rows=(
            Row(
                "`from edge_sdk import load`: import time, memory over bare Python",
                f"{milliseconds:.0f} ms, {memory:.1f} MiB",
            ),
            Row(
                "the same with ONNX Runtime: import time, resident memory of the process",
                f"{whole[0]:.0f} ms, {whole[1]:.0f} MiB",
            ),
        ),
        figures={
            f"{name}_{unit}": round(float(value), 2)
            for name, pair in best.items()
            for unit, value in zip(("ms", "mib"), pair, strict=True)
        },
    )
