"""The report as one self-contained HTML page: no script, no font, nothing fetched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from converters.report import model
from converters.report.model import Report, VariantSummary
from converters.report.plot import plot
from converters.report.style import STYLE
from edge_sdk.bundle.measurements import Candidate, VariantReport

_FIGURES = (
    "size", "smaller", "latency", "speed", "tok/s", "TTFT", "perplexity", "drop", "cosine",
    "top-1", "nearest", "peak RSS",
)  # fmt: skip
_LEGEND = (
    ("chosen", "★", "chosen"),
    ("qualified", "●", "holds every limit"),
    ("rejected", "✕", "misses a limit"),
)


def render_html(report: Report) -> str:
    """The page; everything that comes from outside is escaped."""
    title = escape(f"{report.name} {report.version}")
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}: conversion report</title>\n<style>{STYLE}</style>\n</head>\n<body>",
        f"<header><h1>{title}</h1><p>Converted from <code>{escape(Path(report.source).name)}"
        f"</code> for {len(report.variants)} device profile"
        f"{'s' if len(report.variants) != 1 else ''} in {report.seconds:.0f} s.</p>",
        _contents(report.variants) if len(report.variants) > 1 else "",
        "</header>\n<main>",
        *(_variant(variant) for variant in report.variants),
        _HOW_TO_READ,
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _contents(variants: Iterable[VariantSummary]) -> str:
    links = (
        f'<a href="#{escape(v.report.profile, quote=True)}">{escape(v.report.profile)}</a>'
        for v in variants
    )
    return f"<nav aria-label='Profiles'>{' '.join(links)}</nav>"


def _variant(variant: VariantSummary) -> str:
    report = variant.report
    profile = escape(report.profile, quote=True)
    figure = plot(report, f"Size, latency and drop of all candidates for {report.profile}")
    caption = "".join(
        f'<span class="{status}"><b aria-hidden="true">{mark}</b> {words}</span>'
        for status, mark, words in _LEGEND
    )
    return "\n".join(
        [
            f'<section id="{profile}"><h2>{profile}</h2>',
            f'<p class="lead">Ships <strong>{escape(report.chosen)}</strong>: '
            f"{escape(report.reason)}.</p>",
            _tiles(report),
            f'<figure><div class="scroll">{figure}</div><figcaption>{caption}</figcaption></figure>'
            if figure
            else "",
            _table(report),
            f"<p>{escape(f'{model.machine_sentence(report)} {model.data_sentence(report)}')}</p>",
            *(f"<p>{escape(note)}</p>" for note in report.notes),
            _unquantized(variant),
            "".join(f'<p class="note">{escape(note)}</p>' for note in variant.notes),
            f'<p class="note">Manifest <code>{escape(variant.digest)}</code></p></section>',
        ]
    )


def _tiles(report: VariantReport) -> str:
    best = model.chosen(report)
    if best is None:
        return ""
    ratio = report.source_size_bytes / best.size_bytes if best.size_bytes else None
    tiles = [
        (model.size(best.size_bytes), f"{model.times(ratio)} smaller than the source"),
        (model.speedup(best), "the speed of the source" + ("" if best.speedup else ", predicted")),
    ]
    if best.agreement:
        allowed = f"{best.agreement.drop_of}, {report.max_drop:g} allowed"
        tiles.append((model.figure(best.agreement.drop), allowed))
        tiles += [
            (f"{model.figure(a)} → {model.figure(b)}", f"{name}, source → variant")
            for name, (a, b) in best.agreement.metrics.items()
        ]
    if best.peak_rss_bytes:
        tiles.append((model.size(best.peak_rss_bytes), "peak memory while running"))
    cells = "".join(
        f"<div><dt>{escape(words)}</dt><dd>{escape(value)}</dd></div>" for value, words in tiles
    )
    return f'<dl class="tiles">{cells}</dl>'


def _table(report: VariantReport) -> str:
    """All candidates; figures that none of them has are left out."""
    candidates = model.ordered(report)
    figures = [_figures(candidate, report) for candidate in candidates]
    kept = [i for i in range(len(_FIGURES)) if any(row[i] != "-" for row in figures)]
    names = ("#", "candidate", "engine", "status", *(_FIGURES[i] for i in kept), "why")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = "\n".join(
        _row(number, candidate, [row[i] for i in kept])
        for number, (candidate, row) in enumerate(zip(candidates, figures, strict=True), start=1)
    )
    return (
        f'<div class="scroll"><table><caption>All candidates for {escape(report.profile)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )


def _figures(candidate: Candidate, report: VariantReport) -> list[str]:
    agreement, decoder = candidate.agreement, candidate.decoder
    ratio = report.source_size_bytes / candidate.size_bytes if candidate.size_bytes else None
    latency = model.latency(candidate, report)
    return [
        model.size(candidate.size_bytes),
        model.times(ratio),
        model.milliseconds(latency),
        model.speedup(candidate),
        model.rate(decoder.tokens_per_second if decoder else None),
        model.milliseconds(decoder.ttft_ms if decoder else None),
        model.figure(decoder.perplexity if decoder else None),
        model.figure(agreement.drop if agreement else None),
        model.similarity(agreement.cosine if agreement else None),
        model.figure(agreement.top1 if agreement else None),
        model.figure(agreement.nearest if agreement else None),
        model.size(candidate.peak_rss_bytes),
    ]


def _row(number: int, candidate: Candidate, figures: Iterable[str]) -> str:
    status = escape(candidate.status, quote=True)
    return (
        f'<tr class="{status}"><td class="n">{number}</td>'
        f'<th scope="row">{escape(candidate.name)}</th><td>{escape(candidate.engine)}</td>'
        f'<td class="status">{status}</td>'
        + "".join(f'<td class="n">{escape(cell)}</td>' for cell in figures)
        + f'<td class="why">{escape(candidate.reason)}</td></tr>'
    )


def _unquantized(variant: VariantSummary) -> str:
    if not variant.unquantized:
        return ""
    return (
        f"<details><summary>Nodes left in higher precision: {len(variant.unquantized)}</summary>"
        f"<ul>{''.join(_reasons(variant))}</ul></details>"
    )


def _reasons(variant: VariantSummary) -> Iterator[str]:
    counts = Counter((node.op, node.reason) for node in variant.unquantized)
    for (op, reason), count in counts.most_common():
        names = ", ".join(
            node.node or "(unnamed)"
            for node in variant.unquantized
            if (node.op, node.reason) == (op, reason)
        )
        yield (
            f"<li><b>{escape(op)} × {count}</b> {escape(reason)}"
            f'<br><span class="note">{escape(names)}</span></li>'
        )


_HOW_TO_READ = """<section><h2>How to read this</h2><dl class="words">
<dt>speed</dt><dd>Median over rounds of the source's time over the candidate's, both run in turn on
the same inputs, the source on ONNX Runtime and the candidate on its own engine; above 1 is
faster. A <b>~</b> marks a prediction for a processor or engine that is not here.</dd>
<dt>drop</dt><dd>What <code>--max-drop</code> limits: the task metric's loss where the data has
labels, else the worst output's 1 − similarity or the share of decisions that changed, whichever
is larger. A decision on which the source itself was undecided (within one point of probability)
does not count.</dd>
<dt>tok/s, TTFT, perplexity</dt><dd>For dialogue models: tokens per second of one stream, time
to the first token, and how surprised the model is by the evaluation text. Their drop is the
relative increase of perplexity over the source in fp32.</dd>
<dt>cosine</dt><dd>Mean cosine similarity of the first output with the source's.</dd>
<dt>top-1, nearest</dt><dd>Share of samples with the same best class; with the same nearest
neighbour among the samples.</dd>
<dt>peak RSS</dt><dd>Peak memory of a fresh process that loads and runs the graph, Python and
engine included.</dd></dl></section>"""
