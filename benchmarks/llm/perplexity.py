"""What each candidate costs the example's dialogue model in perplexity."""

from __future__ import annotations

from benchmarks.llm import assets
from benchmarks.result import Outcome, Row
from edge_sdk.bundle.reader import open_bundle


def run(quick: bool) -> Outcome:
    """Converts the example and takes every candidate from its report."""
    [variant] = open_bundle(assets.assistant()).variants
    report = variant.report
    assert report is not None
    found = [row for row in report.candidates if row.decoder is not None]
    source = next(row.decoder.source_perplexity for row in found if row.decoder)
    rises = {
        row.name: row.decoder.perplexity / row.decoder.source_perplexity - 1
        for row in found
        if row.decoder is not None
    }
    return Outcome(
        rows=(
            Row(
                f"examples/assistant: perplexity of the source {source:.3f}, and by how much "
                f"candidates raise it ({report.chosen} was chosen)",
                ", ".join(f"{name} {rise:+.2%}" for name, rise in rises.items()),
            ),
        ),
        figures={"source_perplexity": source}
        | {f"{name}_rise": round(rise, 5) for name, rise in rises.items()},
    )
