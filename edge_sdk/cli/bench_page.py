"""The benchmark as one self-contained HTML page: inline SVG, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from edge_sdk.cli.bench import render

if TYPE_CHECKING:
    from edge_sdk.runtime.bench import BenchReport

STYLE = """
:root { color-scheme: light dark; --paper: #fbfbfa; --ink: #1d2327; --soft: #5d676e;
  --line: #e1e4e6; --bundle: #00705a; --against: #2a63b8 }
@media (prefers-color-scheme: dark) { :root { --paper: #14181b; --ink: #e8ecee; --soft: #9eaab2;
  --line: #30383e; --bundle: #43c9a5; --against: #7fb0ff } }
body { margin: 0 auto; padding: 2rem 1.25rem; max-width: 60rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
h1 { margin: 0; font-size: 1.6rem } h2 { margin: 2rem 0 .5rem; font-size: 1.15rem }
p { color: var(--soft) }
svg { display: block; width: 100%; height: auto; font: 13px system-ui, sans-serif }
svg text { fill: var(--ink) } svg .base { stroke: var(--line) }
.bundle { fill: var(--bundle) } .against { fill: var(--against) }
pre { overflow-x: auto; padding: 1rem; border: 1px solid var(--line); border-radius: 10px;
  font: .85rem/1.5 ui-monospace, Menlo, Consolas, monospace }
"""
WIDTH, LEFT, RIGHT, BAR = 800, 170, 100, 22

Bar = tuple[str, str, float]  # label, class, value


def render_html(report: BenchReport) -> str:
    """The page; everything that comes from outside is escaped."""
    title = escape(f"{report.name} {report.version} on {report.machine}")
    faster = (
        f"<p>The bundle's variant is <b>{report.speedup:.2f}×</b> as fast as "
        f"{escape(report.against.path)}.</p>"
        if report.against and report.speedup is not None
        else ""
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}: benchmark</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>
<body><h1>{title}</h1>
<p>Variant <b>{escape(report.recipe)}</b> for {escape(report.profile)},
{report.threads} thread(s).</p>{faster}
<h2>Latency, ms per call (less is better)</h2>
{bars(list(_latencies(report)), "Latency percentiles in milliseconds")}
<h2>Throughput, calls per second by threads (more is better)</h2>
{bars(list(_throughputs(report)), "Calls per second by number of threads")}
<h2>Peak memory, MiB (less is better)</h2>
{bars(list(_memory(report)), "Peak resident memory in MiB")}
<h2>All figures</h2><pre>{escape(render(report))}</pre></body></html>
"""


def bars(rows: Sequence[Bar], title: str) -> str:
    """Horizontal bars with their values, as SVG."""
    largest = max((value for _, _, value in rows), default=0.0) or 1.0
    height = len(rows) * (BAR + 8) + 8
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">']
    for index, (label, kind, value) in enumerate(rows):
        top = 8 + index * (BAR + 8)
        length = (WIDTH - LEFT - RIGHT) * value / largest
        middle = top + BAR * 0.7
        parts.append(
            f'<text x="{LEFT - 10}" y="{middle:.1f}" text-anchor="end">{escape(label)}</text>'
            f'<rect class="{kind}" x="{LEFT}" y="{top}" width="{length:.1f}" '
            f'height="{BAR}" rx="4"/>'
            f'<text x="{LEFT + length + 8:.1f}" y="{middle:.1f}">{value:.4g}</text>'
        )
    parts.append(f'<line class="base" x1="{LEFT}" y1="0" x2="{LEFT}" y2="{height}"/></svg>')
    return "\n".join(parts)


def _latencies(report: BenchReport) -> Iterator[Bar]:
    for percentile in ("p50_ms", "p95_ms", "p99_ms"):
        for kind, subject in (("bundle", report.bundle), ("against", report.against)):
            if subject is not None:
                yield f"{kind} {percentile[:3]}", kind, getattr(subject.latency, percentile)


def _throughputs(report: BenchReport) -> Iterator[Bar]:
    for entry in report.throughput:
        yield f"bundle, {entry.threads}", "bundle", entry.calls_per_second
        if entry.against_calls_per_second is not None:
            yield f"against, {entry.threads}", "against", entry.against_calls_per_second


def _memory(report: BenchReport) -> Iterator[Bar]:
    for kind, subject in (("bundle", report.bundle), ("against", report.against)):
        if subject is not None:
            yield kind, kind, subject.start.peak_rss_bytes / 2**20
