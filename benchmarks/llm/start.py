"""From nothing to the first token: a new process, warm or from slow storage."""

from __future__ import annotations

import time
from statistics import median

from benchmarks.cgroup import evict, limited, unavailable
from benchmarks.llm import assets
from benchmarks.llm.contest import SETTLE_SECONDS, Contestant, Worker, prompt_of
from benchmarks.llm.memory import RECIPE
from benchmarks.llm.model import SHAPES
from benchmarks.result import Outcome, Row
from edge_sdk.errors import WorkError

PROMPT, CONTEXT, THREADS = 16, 512, 2
STORAGE = 20_000_000  # bytes per second: an eMMC or SD card


def run(quick: bool) -> Outcome:
    """Everyone in turn, warm; then each once from throttled storage."""
    reason = unavailable()
    if reason is not None:
        raise WorkError(f"storage cannot be throttled: {reason}")
    shape = "135m" if quick else "360m"
    everyone = contestants(shape)
    for _ in range(2):  # packs, and fills the page cache; then hashes what was packed
        for contestant in everyone:
            first_token(contestant, shape)
    times: dict[str, list[float]] = {contestant.name: [] for contestant in everyone}
    for _ in range(2 if quick else 10):
        for contestant in everyone:
            time.sleep(SETTLE_SECONDS)
            times[contestant.name].append(first_token(contestant, shape))
    warm = {name: (min(found), median(found)) for name, found in times.items()}
    cold = {contestant.name: from_storage(contestant, shape) for contestant in everyone}
    return Outcome(
        rows=(
            Row(
                f"SmolLM2-{shape.upper()} shape, process start to first token after {PROMPT}, warm",
                _listed({name: found[0] for name, found in warm.items()}, "ms"),
            ),
            Row(
                f"the same with nothing in the page cache, storage at {STORAGE // 1_000_000} MB/s",
                _listed({name: found / 1e3 for name, found in cold.items()}, "s"),
            ),
        ),
        figures={
            f"{name}_warm_{which}_ms": round(value, 1)
            for name, found in warm.items()
            for which, value in zip(("best", "median"), found, strict=True)
        }
        | {f"{name}_cold_ms": round(value, 1) for name, value in cold.items()},
    )


def contestants(shape: str) -> list[Contestant]:
    """Ours prepared, and the peers."""
    settings = {"threads": THREADS, "context": CONTEXT}
    file = assets.gguf(shape)
    return [
        assets.edge("edge-prepared", assets.bundle(shape, RECIPE), **settings),
        assets.genai("genai-b128", assets.genai_model(shape, 128), **settings),
        assets.llama("llama", file, **settings),
        assets.llama("llama-repack-0", file, repack=False, **settings),
    ]


def first_token(contestant: Contestant, shape: str, prefix: tuple[str, ...] = ()) -> float:
    """Milliseconds from starting a process to its first token."""
    prompt = prompt_of(PROMPT, SHAPES[shape].vocab)
    started = time.perf_counter()
    worker = Worker(contestant, prefix)
    worker.turn(prompt, 1)
    found = (time.perf_counter() - started) * 1e3
    worker.stop()
    return found


def from_storage(contestant: Contestant, shape: str) -> float:
    """The same, reading the model through a throttle; programs and libraries stay cached."""
    evict([assets.CACHE / shape])
    with limited("edge-sdk-llm", read_bytes_per_second=STORAGE) as group:
        return first_token(contestant, shape, group.prefix)


def _listed(found: dict[str, float], unit: str) -> str:
    digits = 0 if unit == "ms" else 1
    return ", ".join(f"{name} {value:.{digits}f} {unit}" for name, value in found.items())
