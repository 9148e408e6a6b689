"""The plot of all candidates as inline SVG: size and drop against latency.

Two panels share the latency axis, so that a candidate is found at the same
height in both. Marks differ in shape and not in colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from converters.report import model
from edge_sdk.bundle.measurements import Candidate, VariantReport

WIDTH, HEIGHT = 880, 380
_TOP, _BOTTOM = 28, 330
_PANELS = ((64, 440), (484, 860))
_LEAST_DROP = 1e-5
_NEAR = 13.0  # marks closer than this get their numbers apart


@dataclass(frozen=True)
class _Mark:
    """A candidate to draw: its number in the table, and its latency in milliseconds."""

    number: int
    candidate: Candidate
    latency: float


@dataclass(frozen=True)
class _Scale:
    """Maps values to pixels, linear or logarithmic."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            low, high, value = (math.log10(v) for v in (self.low, self.high, value))
        else:
            low, high = self.low, self.high
        return self.begin + (self.end - self.begin) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = round(math.log10(self.low)), round(math.log10(self.high))
            return [10.0**power for power in range(first, last + 1)]
        step = 10 ** math.floor(math.log10(self.high / 4))
        step *= next(m for m in (1, 2, 5, 10) if self.high / (m * step) <= 6)
        return [step * i for i in range(int(self.high / step) + 1)]


def plot(report: VariantReport, title: str) -> str:
    """The SVG, or an empty string where nothing was measured.

    Args:
        report: Whose candidates to draw; those without a latency are left out.
        title: Accessible name of the figure.
    """
    numbered = enumerate(model.ordered(report), start=1)
    shown = [
        _Mark(number, candidate, latency)
        for number, candidate in numbered
        if (latency := model.latency(candidate, report)) and candidate.size_bytes
    ]
    if not shown:
        return ""
    y = _Scale(0, max(mark.latency for mark in shown) * 1.15, _BOTTOM, _TOP)
    largest = max(*(m.candidate.size_bytes for m in shown), report.source_size_bytes) / 2**20
    by_size = _Scale(0, largest * 1.08, *_PANELS[0])
    by_drop = _Scale(_LEAST_DROP, 1, *_PANELS[1], log=True)
    limit = by_drop(min(1.0, max(_LEAST_DROP, report.max_drop)))
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<rect class="beyond" x="{limit:.1f}" y="{_TOP}" width="{_PANELS[1][1] - limit:.1f}" '
        f'height="{_BOTTOM - _TOP}"/>',
        *_axes(by_size, y, "size, MiB", _size_label),
        *_axes(by_drop, y, "drop against fp32 (log)", _drop_label),
        f'<text class="axis" x="{_PANELS[0][0]}" y="16">latency, ms per call</text>',
        f'<line class="limit" x1="{limit:.1f}" y1="{_TOP}" x2="{limit:.1f}" y2="{_BOTTOM}"/>',
        f'<text class="axis" x="{limit:.1f}" y="16" text-anchor="middle">'
        f"--max-drop {report.max_drop:g}</text>",
        *_drawn([(mark, by_size(mark.candidate.size_bytes / 2**20)) for mark in shown], y),
        *_drawn(
            [
                (mark, by_drop(min(1.0, max(_LEAST_DROP, mark.candidate.agreement.drop))))
                for mark in shown
                if mark.candidate.agreement
            ],
            y,
        ),
        "</svg>",
    ]
    return "\n".join(parts)


def _axes(x: _Scale, y: _Scale, label: str, write: Callable[[float], str]) -> Iterator[str]:
    for value in y.ticks():
        at = y(value)
        yield f'<line class="grid" x1="{x.begin}" y1="{at:.1f}" x2="{x.end}" y2="{at:.1f}"/>'
        yield f'<text x="{x.begin - 7}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>'
    for value in x.ticks():
        at = x(value)
        yield f'<line class="grid" x1="{at:.1f}" y1="{y.end}" x2="{at:.1f}" y2="{y.begin}"/>'
        yield f'<text x="{at:.1f}" y="{_BOTTOM + 17}" text-anchor="middle">{write(value)}</text>'
    middle = (x.begin + x.end) / 2
    yield f'<text class="axis" x="{middle}" y="{_BOTTOM + 38}" text-anchor="middle">{label}</text>'


def _drawn(marks: Sequence[tuple[_Mark, float]], y: _Scale) -> Iterator[str]:
    """Marks with numbers that keep out of each other; the chosen one lies on top."""
    placed: list[tuple[float, float]] = []
    drawn = []
    for mark, at in marks:
        height, status = y(mark.latency), mark.candidate.status
        left, top = at + 9, height - 7
        while any(abs(left - a) < 2 * _NEAR and abs(top - b) < _NEAR for a, b in placed):
            top -= 2
        placed.append((left, top))
        drawn.append(
            f'<g class="{escape(status)}"><title>{escape(_tooltip(mark))}</title>'
            f"{_shape(status, at, height)}"
            f'<text class="number" x="{left:.1f}" y="{top:.1f}">{mark.number}</text></g>'
        )
    return reversed(drawn)


def _shape(status: str, x: float, y: float) -> str:
    if status == "chosen":
        points = " ".join(
            f"{x + r * math.sin(i * math.pi / 5):.1f},{y - r * math.cos(i * math.pi / 5):.1f}"
            for i in range(10)
            for r in (9.5 if i % 2 == 0 else 4.2,)
        )
        return f'<polygon points="{points}"/>'
    if status == "rejected":
        return f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/>'


def _tooltip(mark: _Mark) -> str:
    candidate = mark.candidate
    drop = candidate.agreement.drop if candidate.agreement else None
    return (
        f"{candidate.name} ({candidate.status}): {model.size(candidate.size_bytes)}, "
        f"{mark.latency:.3g} ms, {model.speedup(candidate)} the speed, drop {model.figure(drop)}"
    )


def _size_label(value: float) -> str:
    return f"{value:g}"


def _drop_label(value: float) -> str:
    return f"≤{value:g}" if value == _LEAST_DROP else f"{value:g}"
