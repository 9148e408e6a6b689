"""What a clock and the kernel measured while a variant was chosen.

Latency and RSS differ from run to run, so they may not be part of a variant's
identity: the same source and recipe must give the same manifest digest. They
travel as the annotation ``org.edge-sdk.report`` on the variant's descriptor in
the image index, which every OCI tool copies byte for byte.
"""

from __future__ import annotations

import msgspec

from edge_sdk.bundle.record import Agreement, Frozen

SCHEMA = "org.edge-sdk.report/1"


class Machine(Frozen, frozen=True, kw_only=True):
    """The machine a measurement was made on."""

    cpu: str
    cores: int
    architecture: str
    engines: dict[str, str]


class DeviceFigures(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=False
):
    """What a device measured of one candidate, or why it could not; sent over its shadow.

    Attributes:
        error: Why there are no figures.
        p50_ms: Median of single calls, after warm-up; of a dialogue model, of answers of 64
            tokens.
        p95_ms: 95th percentile of the same.
        calls: Number of calls.
        load_ms: From the path to a loaded model.
        peak_rss_bytes: Largest resident memory of the process, loading included.
        tokens_per_second: Of a dialogue model: its pace after the first token.
        ttft_ms: Of a dialogue model: the time to the first token after a prompt of 128.
        notes: Where the device differs from what the variant asks for.
    """

    error: str | None = None
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    calls: int = 0
    load_ms: float = 0.0
    peak_rss_bytes: int = 0
    tokens_per_second: float | None = None
    ttft_ms: float | None = None
    notes: tuple[str, ...] = ()


class DecoderFigures(Frozen, frozen=True, kw_only=True):
    """What counts for a decoder beside size and memory.

    Attributes:
        perplexity: Of the candidate, on the evaluation data.
        source_perplexity: Of the source in fp32, on the same data.
        tokens_per_second: Decoding speed of one stream.
        ttft_ms: Time to the first token after a prompt of ``prompt_tokens``.
        prompt_tokens: Length of that prompt.
        answer_tokens: Tokens of the answer that a candidate's latency is that of.
    """

    perplexity: float
    source_perplexity: float
    tokens_per_second: float | None = None
    ttft_ms: float | None = None
    prompt_tokens: int = 0
    answer_tokens: int = 64


class Candidate(Frozen, frozen=True, kw_only=True):
    """One row of the table of candidates.

    Attributes:
        name: Recipe name.
        status: ``chosen``, ``qualified``, ``rejected`` or ``failed``.
        reason: Why it has that status, in one sentence.
        size_bytes: Graph and weights as they are shipped.
        agreement: Against the fp32 source; absent where the candidate failed.
        latency_ms: Median of the interleaved runs, one call.
        speedup: Source median over candidate median in the same run.
        peak_rss_bytes: Peak resident memory of a fresh process that loads and runs it.
        predicted_speedup: From the profile's cost model, where its ISA is not here.
        decoder: Perplexity and speed of text, for a decoder; the device's speed, where one
            measured it.
        engine: The engine that it is for.
        device: What a real device measured of it, where one was asked; ``speedup`` is then
            the device's.
    """

    name: str
    status: str
    reason: str
    size_bytes: int = 0
    agreement: Agreement | None = None
    latency_ms: float | None = None
    speedup: float | None = None
    peak_rss_bytes: int | None = None
    predicted_speedup: float | None = None
    decoder: DecoderFigures | None = None
    engine: str = "onnx"
    device: DeviceFigures | None = None


class VariantReport(Frozen, frozen=True, kw_only=True):
    """The measured report of one variant.

    ``notes`` say what else was verified of it where it was converted, and what was not.
    """

    profile: str
    chosen: str
    reason: str
    candidates: tuple[Candidate, ...]
    machine: Machine
    source_size_bytes: int
    source_latency_ms: float
    threads: int
    decisive: bool
    seconds: float
    max_drop: float
    data_origin: str
    notes: tuple[str, ...] = ()
    schema: str = SCHEMA
