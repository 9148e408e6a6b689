"""The report as a value, and the figures that its text and HTML forms share."""

from __future__ import annotations

from edge_sdk.bundle.measurements import Candidate, VariantReport
from edge_sdk.bundle.record import Frozen, Unquantized

SCHEMA = "org.edge-sdk.convert-report/1"
_STATUS_ORDER = ("chosen", "qualified", "rejected", "failed")


class VariantSummary(Frozen, frozen=True, kw_only=True):
    """One variant of the bundle that was written.

    Attributes:
        digest: The variant's manifest digest: its identity.
        report: What was measured, and why it was chosen.
        unquantized: Nodes left in higher precision, with the reason.
        notes: What the passes had to say.
    """

    digest: str
    report: VariantReport
    unquantized: tuple[Unquantized, ...] = ()
    notes: tuple[str, ...] = ()


class Report(Frozen, frozen=True, kw_only=True):
    """What one conversion did.

    Attributes:
        name: Name of the bundle.
        version: Version of the bundle.
        source: The model file, as given.
        bundle: The bundle's directory, as given.
        variants: One per profile, in the order they were asked for.
        seconds: How long it took.
    """

    name: str
    version: str
    source: str
    bundle: str
    variants: tuple[VariantSummary, ...]
    seconds: float
    schema: str = SCHEMA


def ordered(report: VariantReport) -> list[Candidate]:
    """Candidates for reading: the chosen one, then by status and size."""
    return sorted(
        report.candidates, key=lambda c: (_STATUS_ORDER.index(c.status), c.size_bytes, c.name)
    )


def chosen(report: VariantReport) -> Candidate | None:
    """The row of the candidate that ships."""
    return next((c for c in report.candidates if c.name == report.chosen), None)


def latency(candidate: Candidate, report: VariantReport) -> float | None:
    """Milliseconds per call, consistent with the speedups.

    Candidates are timed in several batches, and the machine's pace differs from one
    to the next; what holds across batches is the ratio to the source.
    """
    if candidate.speedup and report.source_latency_ms:
        return report.source_latency_ms / candidate.speedup
    return candidate.latency_ms


def is_decoder(report: VariantReport) -> bool:
    """Whether the candidates were measured as decoders."""
    return any(candidate.decoder for candidate in report.candidates)


def data_sentence(report: VariantReport) -> str:
    """What the figures were taken on."""
    if report.data_origin != "generated":
        return "Calibrated and compared on the data given."
    if is_decoder(report):
        return (
            "The model itself wrote the text it was calibrated and compared on: that shows what "
            "rounding changes, not how the model does on your text. Give --data for that."
        )
    return (
        "Inputs were generated from the signature: they show that a candidate computes "
        "the same function, not how it does on your data. Give --data for that."
    )


def machine_sentence(report: VariantReport) -> str:
    """Where the figures were taken, and whether they decided."""
    machine, threads = report.machine, report.threads
    engines = ", ".join(sorted(machine.engines.values()))
    decided = (
        "measured speed decided"
        if report.decisive
        else "the profile's engine or ISA is not here, so its rules decided and measured "
        "speed is for information"
    )
    return (
        f"Measured on {machine.cpu} ({machine.architecture}, {machine.cores} cores), {engines}, "
        f"{threads} thread{'s' if threads != 1 else ''}; {decided}.{_answer_sentence(report)}"
    )


def _answer_sentence(report: VariantReport) -> str:
    decoder = next((c.decoder for c in report.candidates if c.decoder), None)
    if decoder is None:
        return ""
    return (
        f" Speed is that of an answer of {decoder.answer_tokens} tokens to a prompt of "
        f"{decoder.prompt_tokens}. "
        f"Perplexity of the source in fp32: {figure(decoder.source_perplexity)}."
    )


def size(value: float | None) -> str:
    """Bytes for people: ``22.9 MiB``; ``-`` for none."""
    if not value:
        return "-"
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1000:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} GiB"


def times(value: float | None) -> str:
    """A ratio for people: ``2.66x``; ``-`` for none."""
    return "-" if value is None else f"{value:.2f}x"


def figure(value: float | None) -> str:
    """A share or an error for people, four digits; ``-`` for none."""
    return "-" if value is None else f"{value:.4g}"


def milliseconds(value: float | None) -> str:
    """A duration for people; ``-`` for none."""
    return "-" if value is None else f"{value:.3g} ms"


def rate(value: float | None) -> str:
    """Something per second for people; ``-`` for none."""
    return "-" if value is None else f"{value:.1f}"


def similarity(value: float | None) -> str:
    """A similarity for people, five decimals, because good ones begin with nines."""
    return "-" if value is None else f"{value:.5f}"


def speedup(candidate: Candidate) -> str:
    """Measured speedup, else the predicted one, marked ``~``."""
    if candidate.speedup is None and candidate.predicted_speedup is not None:
        return f"~{times(candidate.predicted_speedup)}"
    return times(candidate.speedup)
