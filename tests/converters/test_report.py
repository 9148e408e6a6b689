"""The report's three forms: what they say, and that nothing breaks out of the page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from converters.report import Report, VariantSummary, render_html, render_text
from edge_sdk.bundle.measurements import Candidate, Machine, VariantReport
from edge_sdk.bundle.record import Agreement, Unquantized

EVIL = "<script>alert(\"x\")</script> & 'more'"


def candidate(name: str, status: str, mib: float, drop: float, **figures: Any) -> Candidate:
    agreement = Agreement(
        samples=9, cosine=1 - drop, max_error=drop, drop=drop, drop_of="1 - cosine"
    )
    return Candidate(
        name=name, status=status, reason=f"because of {name}", size_bytes=int(mib * 2**20),
        agreement=agreement, **figures,
    )  # fmt: skip


CANDIDATES = (
    candidate("source", "qualified", 90, 0, latency_ms=8.8, speedup=1.0),
    candidate("naive", "rejected", 24, 0.3, latency_ms=4.0, speedup=2.2),
    candidate("smooth", "chosen", 23, 0.001, latency_ms=3.3, speedup=2.66, peak_rss_bytes=1 << 26),
    Candidate(name="broken", status="failed", reason=EVIL),
)


def variant(**changes: Any) -> VariantSummary:
    fields: dict[str, Any] = {
        "profile": "x86-64", "chosen": "smooth", "reason": "best value 3.71 of 2",
        "candidates": CANDIDATES,
        "machine": Machine(cpu="CPU", cores=2, architecture="amd64", engines={"onnx": "ort 1"}),
        "source_size_bytes": 90 * 2**20, "source_latency_ms": 8.8, "threads": 1,
        "decisive": True, "seconds": 3.0, "max_drop": 0.01, "data_origin": "user",
    }  # fmt: skip
    unquantized = (
        Unquantized(node="a/MatMul", op="MatMul", reason="both inputs change"),
        Unquantized(node="", op="MatMul", reason="both inputs change"),
    )
    return VariantSummary(
        digest="sha256:0", report=VariantReport(**(fields | changes)), unquantized=unquantized
    )


def report(*variants: VariantSummary, name: str = "minilm") -> Report:
    return Report(
        name=name, version="1.0.0", source="/somewhere/private/minilm.onnx",
        bundle="minilm.bundle", variants=variants or (variant(),), seconds=4.2,
    )  # fmt: skip


class Page(HTMLParser):
    """Checks nesting and collects elements, attributes and text."""

    VOID = frozenset({"meta", "br", "rect", "line", "circle", "path", "polygon"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_json_carries_a_schema_and_round_trips() -> None:
    encoded = msgspec.json.encode(report())
    assert msgspec.json.decode(encoded, type=Report) == report()
    assert b'"schema":"org.edge-sdk.convert-report/1"' in encoded


def test_text_lists_every_candidate_with_the_chosen_one_first() -> None:
    lines = render_text(report()).splitlines()
    table = lines[next(i for i, line in enumerate(lines) if "candidate" in line) + 1 :]
    assert [line.split()[0] for line in table] == ["smooth", "source", "naive", "broken"]
    assert table[0].split()[1:9] == [
        *("onnx", "chosen", "23", "MiB", "3.91x", "2.66x", "0.001", "0.99900")
    ]
    assert "because of naive" in table[2]


def test_text_says_the_verdict_and_what_stays_unquantized() -> None:
    text = render_text(report())
    assert "smooth: 23 MiB, 3.91x smaller, 2.66x the speed, 1 - cosine 0.001 of 0.01" in text
    assert "Left in higher precision: 2, see" in text


@pytest.mark.parametrize("render", [render_text, render_html])
def test_generated_inputs_and_foreign_hardware_are_admitted(render: Any) -> None:
    rows = tuple(
        msgspec.structs.replace(c, speedup=None, predicted_speedup=1.8) for c in CANDIDATES
    )
    said = render(report(variant(data_origin="generated", decisive=False, candidates=rows)))
    assert "Inputs were generated" in said
    assert "is for information" in said
    assert "~1.80x" in said


def test_page_is_self_contained_and_well_formed() -> None:
    page = render_html(report(variant(), variant(profile="arm64")))
    parsed = Page(page)
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"script", "link", "img", "iframe", "object"}
    urls = [v for _, a in parsed.elements for k, v in a.items() if k in ("href", "src")]
    assert urls == ["#x86-64", "#arm64"]
    assert not re.search(r"https?://|url\(|@import", page)
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert ids == ["x86-64", "arm64"]


def test_everything_from_outside_is_escaped() -> None:
    parsed = Page(render_html(report(variant(profile=EVIL, reason=EVIL), name=EVIL)))
    assert "script" not in {tag for tag, _ in parsed.elements}
    assert parsed.text.count(EVIL) >= 4


def test_page_keeps_the_private_folder_of_the_source_to_itself() -> None:
    assert "private" not in render_html(report())


def test_plot_marks_each_measured_candidate_in_both_panels() -> None:
    parsed = Page(render_html(report()))
    marks = [a["class"] for tag, a in parsed.elements if tag == "g"]
    assert sorted(marks) == sorted(["chosen", "qualified", "rejected"] * 2)
    figures = [a for tag, a in parsed.elements if tag == "svg"]
    assert figures[0]["role"] == "img"
    assert "x86-64" in (figures[0]["aria-label"] or "")


def test_marks_stay_inside_the_plot() -> None:
    extreme = (
        candidate("chosen", "chosen", 0.0001, 1.0, latency_ms=1e-4, speedup=9.0),
        candidate("huge", "rejected", 9000, 5.0, latency_ms=9e4, speedup=0.1),
        candidate("better", "qualified", 3, -0.5, latency_ms=5.0, speedup=1.0),
    )
    page = render_html(report(variant(candidates=extreme, chosen="chosen")))
    circle = [a for tag, a in Page(page).elements if tag == "circle"]
    assert all(
        0 <= float(a["cx"] or -1) <= 880 and 0 <= float(a["cy"] or -1) <= 380 for a in circle
    )
    crosses = re.findall(r'd="M(-?[\d.]+) (-?[\d.]+)', page)
    assert crosses
    assert all(0 <= float(x) <= 880 and 0 <= float(y) <= 380 for x, y in crosses)


def test_latencies_of_different_batches_are_shown_consistent_with_speedups() -> None:
    disturbed = candidate("twice", "qualified", 9, 0.001, latency_ms=9.9, speedup=2.0)
    page = render_html(report(variant(candidates=(*CANDIDATES, disturbed))))
    assert ">4.4 ms<" in page
    assert "9.9 ms" not in page


def test_nothing_measured_means_no_plot_but_a_table() -> None:
    rows = (Candidate(name="only", status="failed", reason="refused"),)
    parsed = Page(render_html(report(variant(candidates=rows, chosen="none"))))
    tags = [tag for tag, _ in parsed.elements]
    assert "svg" not in tags
    assert "table" in tags


def test_columns_without_any_figure_are_left_out() -> None:
    head = [text for text in ("top-1", "nearest") if f">{text}<" in render_html(report())]
    assert head == []
