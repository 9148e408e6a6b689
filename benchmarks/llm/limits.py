"""Decoding under a control group's memory limit with the page cache charged."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.cgroup import evict, limited, unavailable
from benchmarks.llm import assets
from benchmarks.llm.contest import Contestant, DiedError, Worker, prompt_of
from benchmarks.llm.memory import RECIPE
from benchmarks.llm.model import SHAPES
from benchmarks.llm.speed import ANSWER, PROMPT
from benchmarks.result import Outcome, Row
from edge_sdk.errors import WorkError

LIMITS_MIB = (512, 320, 288, 256)
CONTEXT = 256
THREADS = 2
# Free memory goes back to the kernel at once (docs/adr/0009); llama.cpp maps or keeps its own.
LEAN = {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536"}


def run(quick: bool) -> Outcome:
    """Everyone at every limit, and without one."""
    reason = unavailable()
    if reason is not None:
        raise WorkError(f"memory limits cannot be set: {reason}")
    shape = "135m" if quick else "360m"
    figures: dict[str, float] = {}
    rows = []
    for contestant in contestants(shape):
        for limit in (None, *LIMITS_MIB):
            name = f"{contestant.name}_{'free' if limit is None else f'{limit}mib'}"
            figures |= under(contestant, shape, limit, name, 1 if quick else 3)
        free = figures[f"{contestant.name}_free_tokens_per_second"]
        shares = (
            f"{limit} MiB {figures[f'{contestant.name}_{limit}mib_tokens_per_second'] / free:.0%}"
            for limit in LIMITS_MIB
        )
        rows.append(
            Row(
                f"SmolLM2-{shape.upper()} shape, {contestant.name}, memory limit with page cache: "
                f"share of its free {free:.0f} tok/s",
                ", ".join(shares),
            )
        )
    return Outcome(rows=tuple(rows), figures=figures)


def contestants(shape: str) -> list[Contestant]:
    """Ours prepared, and llama.cpp as it comes and with weights mapped as they are."""
    settings = {"threads": THREADS, "context": CONTEXT}
    bundle, file = assets.bundle(shape, RECIPE), assets.gguf(shape)
    return [
        replace(assets.edge_int8("edge-int8-cache", bundle, **settings), environment=LEAN),
        assets.llama("llama", file, **settings),
        assets.llama("llama-repack-0", file, repack=False, **settings),
    ]


def under(
    contestant: Contestant, shape: str, limit: int | None, name: str, turns: int
) -> dict[str, float]:
    """Best decoding speed of several turns, hits of the limit, kills; 0 where it was killed."""
    vocab = SHAPES[shape].vocab
    memory = None if limit is None else limit << 20
    best = 0.0
    evict([assets.CACHE / shape])
    with limited("edge-sdk-llm", memory=memory or 1 << 40) as group:
        try:
            worker = Worker(contestant, group.prefix)
            for number in range(turns + 1):
                turn = worker.turn(prompt_of(PROMPT, vocab, number), ANSWER)
                best = max(best, turn.tokens_per_second)
            worker.stop()
        except DiedError:
            best = 0.0
        return {
            f"{name}_tokens_per_second": round(best, 2),
            f"{name}_limit_hits": float(group.hits),
            f"{name}_kills": float(group.kills),
        }
