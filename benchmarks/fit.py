"""How far ``edge-sdk fit`` and memory plans are off, on this machine's own profile.

A full run writes ``converters/spread.json``, from which ``fit`` takes its ranges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from benchmarks.candidates import Measured, measure_all
from benchmarks.result import Outcome, Row
from converters.fit import family_fit, gather
from converters.fit_report import SPREAD, Ratios, Spread, store_spreads
from converters.measure import machine
from converters.predict import treatment
from converters.recipes import families
from converters.target import HOST_ENGINES
from device_profiles.detect import detect
from device_profiles.schema import Profile

FIELDS = ("size", "peak", "latency")
SURE = Ratios(p10=1.0, p90=1.0)
# For predictions without a range.
EXACT = Spread(
    size=SURE, peak=SURE, latency=SURE, ttft=SURE, samples=0, models=(), machine="", engine=""
)


@dataclass(frozen=True)
class Compared:
    """One variant: measured over predicted.

    Attributes:
        model: What it was made of.
        engine: What ran it.
        size: As it ships.
        peak: Memory of a fresh process, against ``fit``.
        latency: One call.
        plan: That memory against the variant's own plan.
    """

    model: str
    engine: str
    size: float
    peak: float
    latency: float
    plan: float


def run(quick: bool) -> Outcome:
    """Predicts and measures every candidate of every benchmark model, on every engine."""
    profile = one_thread(detect())
    found = [compared(one, profile) for one in measure_all(profile, 0.2 if quick else 1.0)]
    engines = {engine: [one for one in found if one.engine == engine]
               for engine in HOST_ENGINES.values()}  # fmt: skip
    if not quick:
        store_spreads(SPREAD, {engine: spread_of(engine, own) for engine, own in engines.items()})
    rows: list[Row] = []
    figures: dict[str, float] = {}
    for engine, own in engines.items():
        rows += _rows(machine().engines[engine], own)
        figures |= {
            f"{engine}_{field}_p{percent}": round(float(np.percentile(_of(own, field), percent)), 3)
            for field in (*FIELDS, "plan")
            for percent in (0, 10, 50, 90, 100)
        }
    return Outcome(rows=tuple(rows), figures=figures)


def compared(found: Measured, profile: Profile) -> Compared:
    """What was measured of a variant over what ``fit`` says of it."""
    recipe = families(profile, profile.quantization[found.source.kind], found.target, ())[
        found.family
    ][0]
    engine = HOST_ENGINES[found.target.format]
    predicted = family_fit(
        gather(found.source, found.dimensions),
        profile,
        found.target,
        found.family,
        treatment(recipe),
        EXACT,
    )
    return Compared(
        model=found.source.name,
        engine=engine,
        size=found.size_bytes / predicted.size_bytes.value,
        peak=found.peak_bytes / predicted.peak_bytes.value,
        latency=found.latency_ms / predicted.latency_ms.value,
        plan=found.peak_bytes / found.planned_bytes,
    )


def spread_of(engine: str, found: Sequence[Compared]) -> Spread:
    """The range that predictions for one engine have shown."""
    here = machine()
    return Spread(
        size=percentiles(_of(found, "size")),
        peak=percentiles(_of(found, "peak")),
        latency=percentiles(_of(found, "latency")),
        samples=len(found),
        models=tuple(dict.fromkeys(one.model for one in found)),
        machine=here.cpu,
        engine=here.engines[engine],
    )


def one_thread(profile: Profile) -> Profile:
    """The profile with one thread, which neighbours on the machine disturb least."""
    return msgspec.structs.replace(profile, cpu=msgspec.structs.replace(profile.cpu, threads=1))


def _rows(engine: str, found: Sequence[Compared]) -> list[Row]:
    models = {one.model for one in found}
    plan = _of(found, "plan")
    within = np.mean(np.abs(np.array(plan) - 1) <= 0.15)
    return [
        Row(
            f"`fit` on {len(found)} variants of {len(models)} models with {engine}: "
            "measured / predicted, tenth to ninetieth percentile",
            "; ".join(f"{field} {range_text(_of(found, field))}" for field in FIELDS),
        ),
        Row(
            "memory plan of the same variants: measured / planned peak",
            f"{range_text(plan)}; {within:.0%} within 15 %",
        ),
    ]


def _of(found: Sequence[Compared], field: str) -> list[float]:
    return [getattr(one, field) for one in found]


def percentiles(values: Sequence[float]) -> Ratios:
    """Tenth and ninetieth."""
    p10, p90 = (round(float(value), 3) for value in np.percentile(values, (10, 90)))
    return Ratios(p10=p10, p90=p90)


def range_text(values: Sequence[float]) -> str:
    """From the tenth to the ninetieth percentile."""
    ratios = percentiles(values)
    return f"{ratios.p10:.2f} to {ratios.p90:.2f}"
