"""What a loaded 360 M model occupies, and how near the memory plan comes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.llm import assets
from benchmarks.llm.contest import Contestant, Memory, prompt_of, running
from benchmarks.llm.model import SHAPES
from benchmarks.llm.speed import ANSWER, PROMPT
from benchmarks.result import Outcome, Row
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.runtime.generation.memory import KvType, kv_per_token

CONTEXT, LONG = 2048, 512
MIB = 1 << 20
RECIPE = "int4-b256"
REST_SECONDS = 2  # after an answer, for everyone


def run(quick: bool) -> Outcome:
    """Memory of everyone as the context fills; plans of three models."""
    shape = "135m" if quick else "360m"
    found = {each.name: footprint(each, shape) for each in contestants(shape)}
    ours, peer = found["edge-prepared"], found["llama-repack-0"][0]
    ratios = plans(quick)
    return Outcome(
        rows=(
            Row(
                f"SmolLM2-{shape.upper()} shape, {RECIPE}, at rest after {PROMPT} + {ANSWER} "
                "tokens: resident, private",
                f"{_mib(ours[0].rss)}, {_mib(ours[0].private)} MiB "
                f"(llama.cpp without repacking {_mib(peer.rss)}, {_mib(peer.private)})",
            ),
            Row(f"the same, peak of a {LONG}-token prompt", f"{_mib(ours[1].peak)} MiB"),
            Row(
                f"the same, peak with all {CONTEXT} tokens of context: float32, int8 cache",
                f"{_mib(ours[2].peak)}, {_mib(found['edge-int8-cache'][2].peak)} MiB",
            ),
            Row(
                f"memory plan of {len(ratios)} dialogue models: measured / planned peak",
                ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()),
            ),
        ),
        figures={
            f"{name}_{when}_{field}_mib": round(getattr(memory, field) / MIB, 1)
            for name, times in found.items()
            for when, memory in zip(("answer", "long", "full"), times, strict=True)
            for field in ("rss", "private", "pss", "peak")
        }
        | {f"plan_{name}": round(ratio, 3) for name, ratio in ratios.items()},
    )


def contestants(shape: str) -> list[Contestant]:
    """Each engine as it comes, and with its means of saving memory."""
    settings = {"threads": 1, "context": CONTEXT}
    bundle, file = assets.bundle(shape, RECIPE), assets.gguf(shape)
    folder = assets.genai_model(shape, 128)
    return [
        assets.edge("edge-prepared", bundle, **settings),
        assets.edge_int8("edge-int8-cache", bundle, **settings),
        assets.edge("edge-plain", bundle, prepare=False, **settings),
        assets.genai("genai-b128", folder, **settings),
        assets.llama("llama", file, **settings),
        assets.llama("llama-repack-0", file, repack=False, **settings),
    ]


def footprint(contestant: Contestant, shape: str) -> tuple[Memory, Memory, Memory]:
    """Memory of a fresh process after a short turn, a long prompt, and a full context."""
    vocab = SHAPES[shape].vocab
    with running([contestant]) as workers:
        [worker] = workers.values()

        def after(prompt: int, new_tokens: int) -> Memory:
            worker.turn(prompt_of(prompt, vocab, prompt), new_tokens)
            time.sleep(REST_SECONDS)
            return worker.memory()

        return after(PROMPT, ANSWER), after(LONG, 2), after(CONTEXT - 8, 8)


def plans(quick: bool) -> dict[str, float]:
    """Measured over planned peak, loaded plainly and prepared, of three models."""
    bundles = {shape: assets.bundle(shape, RECIPE) for shape in ("135m", "360m")[: 2 - quick]}
    bundles["assistant"] = assets.assistant()
    return {
        f"{name}_{'prepared' if prepare else 'plain'}": plan_ratio(bundle, prepare)
        for name, bundle in bundles.items()
        for prepare in (False, True)
    }


def plan_ratio(bundle: Path, prepare: bool, kv: KvType = "float32") -> float:
    """Peak of a fresh process with a full cache, over what the record predicts."""
    [variant] = open_bundle(bundle).variants
    generation = variant.record.generation
    assert generation is not None
    context = min(CONTEXT // 2, generation.context)
    planned = variant.record.memory.peak
    planned += context * kv_per_token(variant.record.memory, generation, kv)
    settings = {"threads": 1, "context": context, "prepare": prepare}
    contestant = assets.edge("edge", bundle, **settings)
    if prepare:  # packing is reported apart from loading
        _answer_fully(contestant, context, generation.vocab)
    return _answer_fully(contestant, context, generation.vocab).peak / planned


def _answer_fully(contestant: Contestant, context: int, vocab: int) -> Memory:
    with running([contestant]) as workers:
        [worker] = workers.values()
        worker.turn(_fill(context, vocab), 1)  # a trained model may end its answer at once
        return worker.memory()


def _fill(context: int, vocab: int) -> Sequence[int]:
    return prompt_of(context - 8, vocab, 9)  # which the trained model answers with some token


def _mib(size: int) -> int:
    return round(size / MIB)
