"""What Prometheus reads: figures of every version in its text format.

https://prometheus.io/docs/instrumenting/exposition_formats. Written here, because the
figures live in :class:`~edge_sdk.serving.served.Served` and a library would count again.
"""

from __future__ import annotations

from collections.abc import Iterator

from edge_sdk import __version__
from edge_sdk.runtime import process
from edge_sdk.serving.health import BUCKETS, PER_OCTAVE, upper_ms
from edge_sdk.serving.router import Router
from edge_sdk.serving.served import Served

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# One bound per octave, 0.16 ms to 84 s, of those that latencies are counted in.
BOUNDS = range(4 * PER_OCTAVE - 1, min(BUCKETS, 24 * PER_OCTAVE), PER_OCTAVE)
Labels = dict[str, str]


class _Page:
    """Lines by metric; all of one metric must stand together."""

    def __init__(self) -> None:
        self._metrics: dict[str, list[str]] = {}

    def add(
        self,
        name: str,
        kind: str,
        description: str,
        value: float,
        labels: Labels | None = None,
        suffix: str = "",
    ) -> None:
        head = [f"# HELP {name} {description}", f"# TYPE {name} {kind}"]
        pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in (labels or {}).items())
        line = f"{name}{suffix}{{{pairs}}} {value}" if pairs else f"{name}{suffix} {value}"
        self._metrics.setdefault(name, head).append(line)

    def __str__(self) -> str:
        return "".join(f"{line}\n" for lines in self._metrics.values() for line in lines)


def render(router: Router) -> str:
    """The page for what is served now."""
    page = _Page()
    page.add("edge_sdk_info", "gauge", "This product.", 1, {"version": __version__})
    page.add("process_resident_memory_bytes", "gauge", "Resident memory in bytes.", process.rss())
    for name, labels, served in _versions(router):
        page.add(
            "edge_sdk_model_info", "gauge", "Versions that are served.", 1,
            {**labels, "digest": served.digest, "profile": served.model.record.profile,
             "role": name},
        )  # fmt: skip
        _add_version(page, labels, served)
    return str(page)


def _versions(router: Router) -> Iterator[tuple[str, Labels, Served]]:
    for model, route in router.routes.items():
        for served in route.versions:
            role = "stable" if served is route.stable else "canary"
            yield role, {"model": model, "version": served.version}, served


def _add_version(page: _Page, labels: Labels, served: Served) -> None:
    totals = served.health.totals()
    page.add(
        "edge_sdk_request_errors_total", "counter",
        "Requests that failed through no fault of the caller.", totals.errors, labels,
    )  # fmt: skip
    page.add(
        "edge_sdk_requests_in_progress", "gauge", "Requests that have begun.", served.uses, labels
    )
    page.add("edge_sdk_generated_tokens_total", "counter", "Tokens drawn.", served.tokens, labels)
    if served.drift is not None:
        page.add(
            "edge_sdk_output_drift", "gauge",
            "Population stability index of outputs against the version before.",
            served.drift, labels,
        )  # fmt: skip
    name, kind = "edge_sdk_request_duration_seconds", "histogram"
    text = "Duration of requests that did not fail; to the first token of answers in words."
    for bound in BOUNDS:
        below = sum(totals.buckets[: bound + 1])
        le = {**labels, "le": f"{upper_ms(bound) / 1e3:.6g}"}
        page.add(name, kind, text, below, le, "_bucket")
    page.add(name, kind, text, totals.answered, {**labels, "le": "+Inf"}, "_bucket")
    page.add(name, kind, text, totals.latency_ms / 1e3, labels, "_sum")
    page.add(name, kind, text, totals.answered, labels, "_count")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
