"""The comparison as one self-contained HTML page: inline SVG, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

from edge_sdk.cli.bench_page import STYLE, bars
from edge_sdk.cli.compare import HEADER, cells

if TYPE_CHECKING:
    from converters.comparison import Comparison, Row

TABLE = """
table { border-collapse: collapse; font-size: .85rem } .scroll { overflow-x: auto }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right }
th:first-child, td:first-child { text-align: left }
"""
MIB = 2**20
SAME_TEXT = "same text"


def render_html(found: Comparison) -> str:
    """The page; everything that comes from outside is escaped."""
    title = f"{len(found.rows)} models side by side"
    talks = any("perplexity" in row.metrics for row in found.rows)
    writes = any(SAME_TEXT in row.metrics for row in found.rows)
    plots: list[tuple[str, Callable[[Row], float]]] = [
        ("Speed against the first (more is better)", lambda row: row.speedup),
        ("Size, MiB (less is better)", lambda row: row.size_bytes / MIB),
        ("Peak memory, MiB (less is better)", lambda row: row.start.peak_rss_bytes / MIB),
    ]
    if talks:
        plots.append(("Perplexity (less is better)", lambda row: row.metrics["perplexity"]))
    elif writes:
        plots.append(("Different texts (less is better)", lambda row: 1 - row.metrics[SAME_TEXT]))
    else:
        plots.append(("1 - cosine (less is better)", lambda row: _distance(row)))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}{TABLE}</style>
</head><body><h1>{title}</h1>
<p>On {found.samples} samples ({escape(found.data)}), {found.threads} thread(s),
{escape(found.machine.cpu)}. The first is the baseline.</p>
{_table(found)}{"".join(f"<p>{escape(note)}</p>" for note in found.notes)}
{"".join(_plot(found, name, value) for name, value in plots)}</body></html>
"""


def _distance(row: Row) -> float:
    return 1 - row.agreement.cosine if row.agreement else 0.0


def _table(found: Comparison) -> str:
    rows = [tuple(cells(row)) for row in found.rows]
    kept = [i for i in range(len(HEADER)) if any(row[i] != "-" for row in rows)]
    head = "".join(f'<th scope="col">{HEADER[i]}</th>' for i in kept)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(row[i])}</td>' for i in kept)}</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _plot(found: Comparison, name: str, value: Callable[[Row], float]) -> str:
    marked = [
        (f"{number}. {row.precision}", "bundle" if number > 1 else "against", value(row))
        for number, row in enumerate(found.rows, start=1)
    ]
    return f"<h2>{name}</h2>{bars(marked, name)}"
