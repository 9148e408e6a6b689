"""How far ``edge-sdk fit`` is off for dialogue models, on this machine's own profile.

A full run writes ``converters/decoder/spread.json``, from which ``fit`` takes its ranges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from benchmarks.fit import EXACT, percentiles, range_text
from benchmarks.llm import assets, speed
from benchmarks.llm.contest import contest, prompt_of, running
from benchmarks.llm.model import SHAPES
from benchmarks.result import Outcome, Row
from converters.decoder.candidates import spec_from
from converters.decoder.fit import ENGINE, SPREAD, ask, family_fit
from converters.decoder.source import DecoderSource
from converters.fit_report import FamilyFit, Spread, store_spreads
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
# How far a prediction may be off.
MEMORY, TIME = 0.10, 0.25
MIB = 2**20


@dataclass(frozen=True)
class Figures:
    """What was predicted or measured of a variant.

    Attributes:
        size: Bytes of its weights.
        peak: Bytes of a process that fills the context.
        latency: Milliseconds per token.
        ttft: Milliseconds to the first token.
    """

    size: float
    peak: float
    latency: float
    ttft: float


@dataclass(frozen=True)
class Compared:
    """One variant at one number of threads."""

    shape: str
    recipe: str
    threads: int
    predicted: Figures
    measured: Figures

    def ratio(self, field: str) -> float:
        """Measured over predicted."""
        return float(getattr(self.measured, field) / getattr(self.predicted, field))

    def __str__(self) -> str:
        one, other = self.measured, self.predicted
        return (
            f"{self.recipe} {1e3 / one.latency:.0f} of {1e3 / other.latency:.0f} tok/s, "
            f"{one.ttft:.0f} of {other.ttft:.0f} ms, "
            f"{one.peak / MIB:.0f} of {other.peak / MIB:.0f} MiB"
        )


def run(quick: bool) -> Outcome:
    """Predicts and measures a few candidates of two shapes at one and at all threads."""
    found = [
        one
        for profile in profiles()
        for shape in SHAPES_OF[quick]
        for one in compare(shape, profile, 2 if quick else 6)
    ]
    if not quick:
        store_spreads(SPREAD, {ENGINE: spread_of(found)})
    ratios = {field: [one.ratio(field) for one in found] for field in FIELDS}
    return Outcome(
        rows=(_summary(ratios), *_details(found)),
        figures={
            f"{field}_p{percent}": round(float(np.percentile(values, percent)), 3)
            for field, values in ratios.items()
            for percent in (0, 10, 50, 90, 100)
        },
    )


def spread_of(found: Sequence[Compared]) -> Spread:
    """The range that predictions have shown."""
    here = machine()
    return Spread(
        **{field: percentiles([one.ratio(field) for one in found]) for field in FIELDS},
        samples=len(found),
        models=tuple(dict.fromkeys(f"SmolLM2-{one.shape.upper()}" for one in found)),
        machine=here.cpu,
        engine=here.engines[ENGINE],
    )


def _summary(ratios: Mapping[str, list[float]]) -> Row:
    ranges = (f"{field} {range_text(values)}" for field, values in ratios.items())
    memory, times = (
        _within(ratios["peak"], MEMORY),
        _within(ratios["latency"] + ratios["ttft"], TIME),
    )
    return Row(
        f"`fit` on {len(ratios['size'])} dialogue variants: measured / predicted, tenth to "
        f"ninetieth percentile; peaks within {MEMORY:.0%}, times within {TIME:.0%}",
        f"{'; '.join(ranges)}; {memory:.0%}, {times:.0%}",
    )


def _details(found: Sequence[Compared]) -> Iterator[Row]:
    for shape, threads in dict.fromkeys((one.shape, one.threads) for one in found):
        own = [one for one in found if (one.shape, one.threads) == (shape, threads)]
        yield Row(
            f"the same, SmolLM2-{shape.upper()} shape, {threads} thread(s): measured of "
            "predicted, decoding, first token, peak memory",
            "; ".join(map(str, own)),
        )


def _within(ratios: Sequence[float], share: float) -> float:
    return float(np.mean(np.abs(np.array(ratios) - 1) <= share))


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


def compare(shape: str, profile: Profile, rounds: int) -> Iterator[Compared]:
    """Predicts and measures candidates of one shape."""
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
        yield Compared(
            shape,
            recipe,
            profile.cpu.threads,
            Figures(
                fit.size_bytes.value,
                fit.peak_bytes.value,
                fit.latency_ms.value,
                fit.decoder.ttft_ms.value,
            ),
            Figures(
                weights,
                peak(shape, recipe),
                1e3 / series.tokens_per_second[0],
                series.ttft_ms[0],
            ),
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
