"""Decoding speed and time to the first token, beside onnxruntime-genai and llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.llm import assets
from benchmarks.llm.contest import Contestant, Series, Worker, contest, prompt_of, running
from benchmarks.llm.model import SHAPES
from benchmarks.result import Outcome, Row
from converters.decoder import costs
from converters.decoder.source import DecoderSource
from converters.decoder.weights import WeightFormat, WeightPlan
from converters.source import open_source
from device_profiles.speed import bandwidth_gb_per_s

PROMPT, ANSWER, CONTEXT = 128, 64, 512
BLOCKS = (32, 128, 256)
PEERS = {
    "genai-b128": "onnxruntime-genai 0.18.0, blocks of 128",
    "llama-q4_0": "llama.cpp Q4_0 (llama-cpp-python 0.3.36)",
}
# Larger than any cache that a read could come from.
BANDWIDTH_MIB = 512


class Figures(NamedTuple):
    """One contestant at one number of threads."""

    tokens_per_second: tuple[float, float]
    ttft_ms: tuple[float, float]


def run(quick: bool) -> Outcome:
    """The contest at one and at two threads."""
    shape = "135m" if quick else "360m"
    found = {threads: race(shape, threads, 2 if quick else 12) for threads in (1, 2)}
    rows: list[Row] = []
    figures: dict[str, float] = {}
    for threads, series in found.items():
        bound = bandwidth_gb_per_s(threads, BANDWIDTH_MIB) * 1e9
        rows += table(shape, threads, series)
        for name, one in series.items():
            key = f"{name}_{threads}t"
            figures |= dict(zip(_names(key), (*one.tokens_per_second, *one.ttft_ms), strict=True))
        for block in BLOCKS:
            best = series[f"edge-b{block}"].tokens_per_second[0]
            figures[f"edge-b{block}_{threads}t_bandwidth_share"] = round(
                best * token_bytes(shape, block) / bound, 3
            )
        figures[f"bandwidth_{threads}t_gb_per_s"] = round(bound / 1e9, 1)
    return Outcome(rows=tuple(rows), figures=figures)


def contestants(shape: str, threads: int) -> list[Contestant]:
    """Everyone with the same context and threads."""
    settings = {"threads": threads, "context": CONTEXT}
    ours = [
        assets.edge(f"edge-b{block}", assets.bundle(shape, f"int4-b{block}"), **settings)
        for block in BLOCKS
    ]
    lean = assets.bundle(shape, f"int4-b{BLOCKS[-1]}")
    ours.append(assets.edge_int8(f"edge-b{BLOCKS[-1]}-int8-cache", lean, **settings))
    genai = [
        assets.genai(f"genai-b{block}", assets.genai_model(shape, block), **settings)
        for block in (32, 128)
    ]
    return [*ours, *genai, assets.llama("llama-q4_0", assets.gguf(shape), **settings)]


def race(shape: str, threads: int, rounds: int) -> dict[str, Figures]:
    """Best and median of everyone."""
    with running(contestants(shape, threads)) as workers:
        return figures_of(workers, shape, rounds)


def figures_of(workers: Mapping[str, Worker], shape: str, rounds: int) -> dict[str, Figures]:
    """Asks workers in turn."""
    vocab = SHAPES[shape].vocab
    prompts = [prompt_of(PROMPT, vocab, number) for number in range(rounds + 1)]
    found = contest(workers, prompts, ANSWER)
    return {name: _figures(series) for name, series in found.items()}


def token_bytes(shape: str, block: int) -> int:
    """Packed weights that one token reads."""
    found = open_source(assets.source(shape))
    assert isinstance(found, DecoderSource)
    plan = WeightPlan(WeightFormat(4, block))
    return sum(matrix.packed_bytes for matrix in costs.matrices(found.architecture, plan))


def table(shape: str, threads: int, found: Mapping[str, Figures]) -> list[Row]:
    """Ours against each peer, best of all rounds, at the peer's block size and at the leanest."""
    rows = []
    for peer, block in (("genai-b128", 128), ("llama-q4_0", 32)):
        theirs = found[peer]
        for ours in dict.fromkeys((f"edge-b{block}", f"edge-b{BLOCKS[-1]}")):
            own = found[ours]
            speed = own.tokens_per_second[0] / theirs.tokens_per_second[0]
            wait = own.ttft_ms[0] / theirs.ttft_ms[0]
            rows.append(
                Row(
                    f"SmolLM2-{shape.upper()} shape, {ours} against {PEERS[peer]}, "
                    f"{threads} thread(s): decoding; first token after {PROMPT}",
                    f"{own.tokens_per_second[0]:.0f} tok/s, {speed:.2f}×; "
                    f"{own.ttft_ms[0]:.0f} ms, {wait:.2f}×",
                )
            )
    return rows


def _figures(series: Series) -> Figures:
    speed, wait = series.tokens_per_second, series.ttft_ms
    return Figures((round(speed[0], 2), round(speed[1], 2)), (round(wait[0], 1), round(wait[1], 1)))


def _names(key: str) -> tuple[str, ...]:
    return tuple(
        f"{key}_{what}_{which}"
        for what in ("tokens_per_second", "ttft_ms")
        for which in ("best", "median")
    )
