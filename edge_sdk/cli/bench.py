"""``edge-sdk bench``: a bundle's latency, throughput and memory on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.bundle import files
from edge_sdk.cli.arguments import positive, thread_counts
from edge_sdk.cli.output import emit_json, human_bytes, note, table
from edge_sdk.errors import InputError

if TYPE_CHECKING:
    from edge_sdk.runtime.bench import BenchReport, Call, Subject

EPILOG = """\
examples:
  edge-sdk bench model.bundle
  edge-sdk bench model.bundle --against model.onnx --threads 1,2,4 --html bench.html

Inputs are the bundle's golden inputs unless --input is given. With --against, both models
run in turn on the same inputs, and the speedup is the median over pairs of turns.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = EPILOG
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="bundle, or STORE#name:version")
    parser.add_argument("--profile", default="auto", help="variant (default: this machine's)")
    parser.add_argument(
        "--against", type=Path, metavar="MODEL.onnx", help="model to compare with, its source"
    )
    parser.add_argument("--input", type=Path, metavar="X.npz", help="one call's inputs")
    parser.add_argument(
        "--threads", type=thread_counts, default=(), metavar="N,…",
        help="numbers of threads; latency is of the first",
    )  # fmt: skip
    parser.add_argument("--seconds", type=positive, default=3.0, help="per measurement (default 3)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measures and prints."""
    from edge_sdk.runtime.bench import Request, bench

    if args.against is not None and not args.against.is_file():
        raise InputError("no such file", where=str(args.against))
    if args.html is not None and not args.html.parent.is_dir():
        raise InputError("no such folder", where=str(args.html.parent), remedy="create it first")
    note(f"measuring {args.bundle} for about {3 * args.seconds:.0f} s; keep the machine quiet")
    report = bench(
        Request(
            bundle=args.bundle,
            profile=args.profile,
            against=args.against,
            calls=_calls(args.input) if args.input else (),
            inputs=str(args.input) if args.input else "golden",
            threads=args.threads,
            seconds=args.seconds,
        )
    )
    if args.html:
        from edge_sdk.cli.bench_page import render_html

        with files.writing(args.html), files.temporary(args.html.parent) as file:
            file.write(render_html(report).encode())
            files.commit(file, args.html)
    if args.json:
        emit_json(report)
    else:
        print(render(report))
    return 0


def render(report: BenchReport) -> str:
    """The report for people."""
    engines = ", ".join(f"{name} {version}" for name, version in report.engines.items())
    lines = [
        f"{report.name} {report.version}, {report.profile} ({report.recipe}) on {report.machine}",
        f"{engines}; {report.threads} thread{'s' if report.threads != 1 else ''}, "
        f"{report.bundle.latency.calls} calls, inputs: {report.inputs}",
        "",
        table(
            ("", "p50 ms", "p95 ms", "p99 ms", "load ms", "first run ms", "peak RSS", "PSS"),
            _subjects(report),
        ),
    ]
    if report.speedup is not None:
        lines.append(f"speedup {report.speedup:.2f}, median over pairs of turns")
    header = ("threads", "calls/s", "against") if report.against else ("threads", "calls/s")
    rows = [
        (str(t.threads), f"{t.calls_per_second:.0f}", f"{t.against_calls_per_second or 0:.0f}")
        for t in report.throughput
    ]
    return "\n".join([*lines, "", table(header, [row[: len(header)] for row in rows])])


def _subjects(report: BenchReport) -> Iterator[tuple[str, ...]]:
    yield ("bundle", *_figures(report.bundle))
    if report.against:
        yield ("against", *_figures(report.against))


def _figures(subject: Subject) -> tuple[str, ...]:
    latency, start = subject.latency, subject.start
    times = (latency.p50_ms, latency.p95_ms, latency.p99_ms, start.load_ms, start.first_run_ms)
    return (
        *(f"{value:.3g}" for value in times),
        human_bytes(start.peak_rss_bytes),
        human_bytes(start.pss_bytes),
    )


def _calls(path: Path) -> list[Call]:
    """Arrays of an ``.npz`` as one call."""
    from edge_sdk.cli.run import read_npz

    return [read_npz(path)]
