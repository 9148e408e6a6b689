"""What a comparison found, as typed values."""

from __future__ import annotations

from edge_sdk.bundle.measurements import Machine
from edge_sdk.bundle.record import Agreement, Frozen
from edge_sdk.runtime.bench import FreshStart, Latency, Throughput


class Dialogue(Frozen, frozen=True, kw_only=True):
    """How fast a dialogue model answers, one stream alone; medians over turns.

    Attributes:
        ttft_ms: Time to the first token.
        tokens_per_second: Pace of the tokens after it.
        prompt_tokens: Length of the prompt.
    """

    ttft_ms: float
    tokens_per_second: float
    prompt_tokens: int


class Row(Frozen, frozen=True, kw_only=True):
    """One model.

    Attributes:
        given: As it was given.
        what: What that is: a file, or a bundle's variant.
        engine: The engine it runs on.
        precision: A variant's recipe; of a file, the type most of its weights have.
        size_bytes: All of its files.
        metrics: Its own figures of merit: the task metric, perplexity.
        agreement: Of its outputs with the baseline's; ``None`` for dialogue models.
        latency: Of single calls; ``None`` for dialogue models.
        speedup: Median over pairs of turns of the baseline's time over this one's.
        throughput: Calls per second, by threads.
        dialogue: How fast it answers; ``None`` for other models.
        start: Load time and memory in a fresh process.
    """

    given: str
    what: str
    engine: str
    precision: str
    size_bytes: int
    speedup: float
    start: FreshStart
    metrics: dict[str, float]
    agreement: Agreement | None = None
    latency: Latency | None = None
    throughput: tuple[Throughput, ...] = ()
    dialogue: Dialogue | None = None


class Comparison(Frozen, frozen=True, kw_only=True):
    """What ``edge-sdk compare --json`` prints.

    Attributes:
        rows: The models in the order given, the baseline first.
        data: The file the data came from, or ``generated``.
        samples: Samples, or windows of text, that were compared.
        threads: Threads of the sessions whose latency is given.
        machine: Where it was measured.
        notes: What to bear in mind.
        seconds: Time taken.
    """

    rows: tuple[Row, ...]
    data: str
    samples: int
    threads: int
    machine: Machine
    notes: tuple[str, ...]
    seconds: float
    schema: str = "org.edge-sdk.compare/1"
