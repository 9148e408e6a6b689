"""The report as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from converters.report import model
from converters.report.model import Report, VariantSummary
from edge_sdk.bundle.measurements import Candidate, VariantReport

HEADER = (
    "candidate", "engine", "status", "size", "ratio", "speedup", "drop", "cosine", "top1",
    "peak RSS", "reason",
)  # fmt: skip
DECODER_HEADER = (
    "candidate", "status", "size", "ratio", "speedup", "tok/s", "TTFT", "perplexity", "increase",
    "top1", "peak RSS", "reason",
)  # fmt: skip
_TEXT_COLUMNS = ("candidate", "engine", "status", "reason")


def render_text(report: Report) -> str:
    """The whole report: a verdict and a table of candidates per profile."""
    parts = [f"{report.name} {report.version} -> {report.bundle}  ({report.seconds:.1f} s)"]
    for variant in report.variants:
        parts += ["", *_variant(variant)]
    return "\n".join(parts)


def candidate_table(report: VariantReport) -> str:
    """One row per candidate, the chosen one first."""
    header = DECODER_HEADER if model.is_decoder(report) else HEADER
    cells = [_cells(candidate, report) for candidate in model.ordered(report)]
    rows = [header, *([row[name] for name in header] for row in cells)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    return "\n".join(_line(row, header, widths) for row in rows)


def verdict(report: VariantReport) -> str:
    """The chosen candidate's figures in one line."""
    best = model.chosen(report)
    if best is None:
        return report.reason
    drop = "" if best.agreement is None else (
        f", {best.agreement.drop_of} {model.figure(best.agreement.drop)}"
        f" of {report.max_drop:g} allowed"
    )  # fmt: skip
    ratio = report.source_size_bytes / best.size_bytes if best.size_bytes else None
    return (
        f"{best.name}: {model.size(best.size_bytes)}, {model.times(ratio)} smaller, "
        f"{model.speedup(best)} the speed{drop}"
    )


def _variant(variant: VariantSummary) -> Iterator[str]:
    report = variant.report
    yield f"{report.profile}  {verdict(report)}"
    yield f"  why: {report.reason}"
    yield f"  {model.machine_sentence(report)}"
    yield f"  {model.data_sentence(report)}"
    yield from (f"  {note}" for note in report.notes)
    if variant.unquantized:
        count, profile = len(variant.unquantized), report.profile
        yield f"  Left in higher precision: {count}, see `edge-sdk inspect --profile {profile}`"
    yield ""
    yield from (f"  {line}" for line in candidate_table(report).splitlines())


def _cells(candidate: Candidate, report: VariantReport) -> dict[str, str]:
    """Column -> cell, of the columns of both headers."""
    agreement, decoder = candidate.agreement, candidate.decoder
    ratio = report.source_size_bytes / candidate.size_bytes if candidate.size_bytes else None
    drop = model.figure(agreement.drop if agreement else None)
    return {
        "candidate": candidate.name,
        "engine": candidate.engine,
        "status": candidate.status,
        "size": model.size(candidate.size_bytes),
        "ratio": model.times(ratio),
        "speedup": model.speedup(candidate),
        "drop": drop,
        "increase": drop,
        "cosine": model.similarity(agreement.cosine if agreement else None),
        "top1": model.figure(agreement.top1 if agreement else None),
        "tok/s": model.rate(decoder.tokens_per_second if decoder else None),
        "TTFT": model.milliseconds(decoder.ttft_ms if decoder else None),
        "perplexity": model.figure(decoder.perplexity if decoder else None),
        "peak RSS": model.size(candidate.peak_rss_bytes),
        "reason": candidate.reason,
    }


def _line(row: Sequence[str], header: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if column in _TEXT_COLUMNS else cell.rjust(width)
        for cell, column, width in zip(row, header, widths, strict=True)
    ]
    return "  ".join(cells).rstrip()
