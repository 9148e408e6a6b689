"""``edge-sdk compare``: models, bundles or variants side by side."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.bundle import files
from edge_sdk.cli.arguments import positive, thread_counts
from edge_sdk.cli.convert import require_converters, spoken_progress
from edge_sdk.cli.output import answer, human_bytes, table
from edge_sdk.errors import InputError

if TYPE_CHECKING:
    from converters.comparison import Comparison, Row

EPILOG = """\
examples:
  edge-sdk compare model.onnx model.bundle --data samples.npz
  edge-sdk compare model.onnx model.tflite v1.bundle v2.bundle@x86-64 --data texts.jsonl
  edge-sdk compare chat-int4.bundle chat-int8.bundle --data turns.jsonl --html compare.html

The first one is the baseline: the outputs of the others are compared with its outputs on the
same data, and speed is the median over pairs of turns of its time over theirs. With labels in
the data each has its own figure of merit (--metric); dialogue models have a perplexity, and of
encoder-decoder models what they write is compared, with targets in the data and with each other.
"""
HEADER = (
    "", "engine", "precision", "size", "metric", "cosine", "top-1", "drop", "p50 ms", "p95 ms",
    "speed", "calls/s", "TTFT ms", "tok/s", "load ms", "peak RSS", "PSS",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = EPILOG
    parser.add_argument(
        "subjects", metavar="MODEL", nargs="+",
        help=".onnx, .tflite, BUNDLE, BUNDLE@profile or STORE#name:version; the baseline first",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, metavar="FILE|DIR",
        help=".npz, folder of .npz or .jsonl to compare on (default: generated)",
    )  # fmt: skip
    parser.add_argument("--metric", help="task metric for labelled data, or module:function")
    parser.add_argument(
        "--profile", default="auto", help="variant of bundles (default: this machine's)"
    )
    parser.add_argument(
        "--threads", type=thread_counts, default=(), metavar="N,…",
        help="numbers of threads; latency is of the first (default: all cores)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=positive, default=2.0, help="per model and measurement (default 2)"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Compares and prints."""
    require_converters()
    from converters.comparison import Request, compare

    if args.html is not None and not args.html.parent.is_dir():
        raise InputError("no such folder", where=str(args.html.parent), remedy="create it first")
    request = Request(
        subjects=tuple(args.subjects),
        data=args.data,
        metric=args.metric,
        profile=args.profile,
        threads=args.threads,
        seconds=args.seconds,
    )
    with spoken_progress() as progress:
        found = compare(request, progress)
    if args.html:
        from edge_sdk.cli.compare_page import render_html

        with files.writing(args.html), files.temporary(args.html.parent) as file:
            file.write(render_html(found).encode())
            files.commit(file, args.html)
    answer(found, render(found), args.json)
    return 0


def render(found: Comparison) -> str:
    """The comparison for people; columns that nobody fills are left out."""
    rows = [tuple(cells(row)) for row in found.rows]
    kept = [i for i in range(len(HEADER)) if any(row[i] != "-" for row in rows)]
    engines = ", ".join(f"{name} {version}" for name, version in found.machine.engines.items())
    lines = [
        f"{len(rows)} models on {found.samples} samples ({found.data}), {found.threads} "
        f"thread{'s' if found.threads > 1 else ''}, {found.machine.cpu}",
        engines,
        "",
        table([HEADER[i] for i in kept], [[row[i] for i in kept] for row in rows]),
        *found.notes,
    ]
    return "\n".join(lines)


def cells(row: Row) -> Iterator[str]:
    """One row's cells, in the order of :data:`HEADER`; ``-`` where it has no such figure."""
    yield from (row.given, row.engine, row.precision, human_bytes(row.size_bytes))
    yield ", ".join(f"{name} {value:.4g}" for name, value in row.metrics.items()) or "-"
    agreement, latency, dialogue = row.agreement, row.latency, row.dialogue
    yield f"{agreement.cosine:.5f}" if agreement else "-"
    yield f"{agreement.top1:.4f}" if agreement and agreement.top1 is not None else "-"
    yield f"{agreement.drop:.3g}" if agreement else "-"
    yield f"{latency.p50_ms:.3g}" if latency else "-"
    yield f"{latency.p95_ms:.3g}" if latency else "-"
    yield f"{row.speedup:.2f}x"
    yield " / ".join(f"{entry.calls_per_second:.0f}" for entry in row.throughput) or "-"
    yield f"{dialogue.ttft_ms:.3g}" if dialogue else "-"
    yield f"{dialogue.tokens_per_second:.4g}" if dialogue else "-"
    yield f"{row.start.load_ms:.3g}"
    yield from (human_bytes(row.start.peak_rss_bytes), human_bytes(row.start.pss_bytes))
