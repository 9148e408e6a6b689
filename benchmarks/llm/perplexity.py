"""What quantization costs the example's dialogue model, in perplexity and in right answers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import edge_sdk
from benchmarks.llm import assets
from benchmarks.result import Outcome, Row
from edge_sdk.bundle.measurements import VariantReport
from edge_sdk.bundle.reader import open_bundle
from examples.assistant.evaluate import answers, read_dialogues

# Held-out dialogues that are asked of a bundle in a quick run.
FEW = 10


def run(quick: bool) -> Outcome:
    """Takes candidates from the conversion's report, and asks two bundles what was held out."""
    [variant] = open_bundle(assets.assistant()).variants
    report = variant.report
    assert report is not None
    rises = perplexity_rises(report)
    chosen = right(assets.assistant(), FEW if quick else None)
    source = right(assets.assistant("fp32"), FEW if quick else None)
    return Outcome(
        rows=(
            Row(
                "examples/assistant: by how much candidates raise perplexity",
                ", ".join(f"{name} {rise:+.2%}" for name, rise in rises.items()),
            ),
            Row(
                f"the same, {report.chosen} chosen: held-out answers right to the letter",
                f"{chosen:.1%} (fp32 {source:.1%})",
            ),
        ),
        figures={f"{name}_perplexity_rise": round(rise, 5) for name, rise in rises.items()}
        | {"chosen_right": round(chosen, 4), "fp32_right": round(source, 4)},
    )


def perplexity_rises(report: VariantReport) -> Mapping[str, float]:
    """Candidate -> its perplexity over the source's, minus one, on the same text."""
    return {
        row.name: row.decoder.perplexity / row.decoder.source_perplexity - 1
        for row in report.candidates
        if row.decoder is not None
    }


def right(bundle: Path, dialogues: int | None) -> float:
    """Share of held-out answers that are right."""
    model = edge_sdk.load(bundle, threads=1)
    tried = list(answers(model, islice(read_dialogues(), dialogues)))
    return sum(one.is_right for one in tried) / len(tried)
