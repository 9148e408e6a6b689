"""How far ``edge-sdk fit`` is off for dialogue models, on this machine's own profile.

A full run writes ``converters/decoder/spread.json``, from which ``fit`` takes its ranges.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from benchmarks.fit import EXACT
from benchmarks.llm import assets, speed
from benchmarks.llm.contest import contest, prompt_of, running
from benchmarks.llm.model import SHAPES
from benchmarks.result import Outcome, Row
from converters.decoder.candidates import spec_from
from converters.decoder.fit import ENGINE, SPREAD, ask, family_fit
from converters.decoder.source import DecoderSource
from converters.fit_report import FamilyFit, Ratios, Spread, store_spreads
from converters.measure import machine
from converters.source import open_source
from device_profiles.detect import detect
from device_profiles.schema import Profile
from device_profiles.speed import bandwidth_gb_per_s
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.record import Recipe

RECIPES = ("int4-b32", "int4-b128", "int4-b256", "int8-b128")
SHAPES_OF = {True: ("135m",), False: ("135m", "360m")}
FIELDS = ("size", "peak", "latency", "ttft")


def run(quick: bool) -> Outcome:
    """Predicts and measures a few candidates of two shapes at one and at all threads."""
    ratios: dict[str, list[float]] = {field: [] for field in FIELDS}
    for profile in profiles():
        for shape in SHAPES_OF[quick]:
            for found in compare(shape, profile, 2 if quick else 6):
                for field, ratio in zip(FIELDS, found, strict=True):
                    ratios[field].append(ratio)
    here = machine()
    spread = Spread(
        **{field: _percentiles(values) for field, values in ratios.items()},
        samples=len(ratios["size"]),
        models=tuple(f"SmolLM2-{shape.upper()}" for shape in SHAPES_OF[quick]),
        machine=here.cpu,
        engine=here.engines["onnx"],
    )
    if not quick:
        store_spreads(SPREAD, {ENGINE: spread})
    within = np.mean(np.abs(np.array(ratios["latency"] + ratios["ttft"]) - 1) <= 0.25)
    return Outcome(
        rows=(
            Row(
                f"`fit` on {spread.samples} dialogue variants: measured / predicted, "
                "tenth to ninetieth percentile; times within 25 %",
                "; ".join(
                    f"{field} {_percentiles(values).p10:.2f} to {_percentiles(values).p90:.2f}"
                    for field, values in ratios.items()
                )
                + f"; {within:.0%}",
            ),
        ),
        figures={
            f"{field}_p{percent}": round(float(np.percentile(values, percent)), 3)
            for field, values in ratios.items()
            for percent in (0, 10, 50, 90, 100)
        },
    )


def profiles() -> Iterator[Profile]:
    """This machine with all its threads, and with one."""
    everything = detect()
    yield everything
    if everything.cpu.threads > 1:
        one = round(bandwidth_gb_per_s(1, speed.BANDWIDTH_MIB), 1)
        replace = msgspec.structs.replace
        yield replace(
            everything,
            cpu=replace(everything.cpu, threads=1),
            memory=replace(everything.memory, bandwidth_gb_per_s=one),
        )


def compare(shape: str, profile: Profile, rounds: int) -> Iterator[tuple[float, ...]]:
    """Measured over predicted size, peak, time per token and time to the first token."""
    predicted = {recipe: predict(shape, recipe, profile) for recipe in RECIPES}
    settings = {"threads": profile.cpu.threads, "context": speed.CONTEXT}
    everyone = [assets.edge(r, assets.bundle(shape, r), **settings) for r in RECIPES]
    prompts = [prompt_of(speed.PROMPT, SHAPES[shape].vocab, n) for n in range(rounds + 1)]
    with running(everyone) as workers:
        found = contest(workers, prompts, speed.ANSWER)
    for recipe, series in found.items():
        fit = predicted[recipe]
        assert fit.decoder is not None
        [variant] = open_bundle(assets.bundle(shape, recipe)).variants
        weights = sum(blob.size for graph in variant.record.graphs[:1] for blob in graph.weights)
        yield (
            weights / fit.size_bytes.value,
            peak(shape, recipe) / fit.peak_bytes.value,
            1e3 / series.tokens_per_second[0] / fit.latency_ms.value,
            series.ttft_ms[0] / fit.decoder.ttft_ms.value,
        )


def predict(shape: str, recipe: str, profile: Profile) -> FamilyFit:
    """What ``fit`` says of one candidate, with the context and prompt of the measurement."""
    source = open_source(assets.source(shape))
    assert isinstance(source, DecoderSource)
    question = ask(source, {"context": speed.CONTEXT, "prompt": speed.PROMPT}, EXACT)
    spec = spec_from(Recipe(name=recipe), source.architecture, source.weights)
    return family_fit(question, profile, spec)


def peak(shape: str, recipe: str) -> int:
    """Peak memory of a fresh process that fills its context.

    With one thread: beside a busy core others would be tried, by a second session that maps the
    same weights, and such pages are counted twice.
    """
    contestant = assets.edge(recipe, assets.bundle(shape, recipe), threads=1, context=speed.CONTEXT)
    with running([contestant]) as workers:
        [worker] = workers.values()
        worker.turn(prompt_of(speed.CONTEXT - 8, SHAPES[shape].vocab), 8)
        return worker.memory().peak


def _percentiles(values: list[float]) -> Ratios:
    p10, p90 = (round(float(value), 3) for value in np.percentile(values, (10, 90)))
    return Ratios(p10=p10, p90=p90)
