"""The digits example as a user converts it: size, speed and accuracy against its source."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import edge_sdk
from benchmarks.result import Outcome, Row
from converters import convert
from converters.materialize import open_path
from edge_sdk.runtime.bench import Request, bench
from edge_sdk.runtime.samples import run_arrays

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
PROFILE = "x86-64"


def run(quick: bool) -> Outcome:
    """Converts, measures interleaved with the source, and counts right answers held out."""
    source = DIGITS / "digits.onnx"
    with tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder:
        bundle = Path(folder) / "digits.bundle"
        report = convert(source, [PROFILE], bundle, data=DIGITS / "calibration.npz")
        [variant] = [found.report for found in report.variants]
        timed = bench(Request(bundle, PROFILE, source, threads=(1,), seconds=0.5 if quick else 4.0))
        before, after = accuracies(source, bundle)
    chosen = variant.candidates[0]
    smaller = variant.source_size_bytes / chosen.size_bytes
    return Outcome(
        rows=(
            Row(
                f"digits CNN, chosen by the converter: {chosen.name} on {chosen.engine}, "
                "against fp32 as ONNX Runtime optimizes it, one thread",
                f"{smaller:.1f}× smaller, {timed.speedup:.2f}× the speed, "
                f"accuracy {after:.1%} (fp32 {before:.1%})",
            ),
        ),
        figures={
            "source_bytes": variant.source_size_bytes,
            "variant_bytes": chosen.size_bytes,
            **{f"speedup_of_{row.name}": row.speedup for row in variant.candidates if row.speedup},
            "speedup": timed.speedup or 0.0,
            "source_p50_ms": round(timed.against.latency.p50_ms, 4) if timed.against else 0.0,
            "variant_p50_ms": round(timed.bundle.latency.p50_ms, 4),
            "source_accuracy": before,
            "variant_accuracy": after,
            "conversion_seconds": report.seconds,
        },
    )


def accuracies(source: Path, bundle: Path) -> tuple[float, float]:
    """Share of held-out digits that the source and the bundle get right."""
    with np.load(DIGITS / "heldout.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    labels = arrays.pop("labels")
    session, model = open_path(source), edge_sdk.load(bundle, PROFILE)
    [scores] = session.run(arrays).values()
    [found] = run_arrays(model, arrays).values()
    before, after = (float((s.argmax(-1) == labels).mean()) for s in (scores, found))
    return before, after
