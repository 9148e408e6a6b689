"""How far ``edge-sdk fit`` and memory plans are off, on this machine's own profile.

A full run writes ``converters/spread.json``, from which ``fit`` takes its ranges.
"""

from __future__ import annotations

import msgspec
import numpy as np

from benchmarks.candidates import measure_all
from benchmarks.result import Outcome, Row
from converters.fit import family_fit, gather
from converters.fit_report import SPREAD, Ratios, Spread, load_spread
from converters.measure import machine
from converters.predict import treatment
from converters.recipes import families
from converters.target import HOST_ENGINES
from device_profiles.detect import detect
from device_profiles.schema import Profile

FIELDS = ("size", "peak", "latency")


def run(quick: bool) -> Outcome:
    """Predicts and measures every candidate of every benchmark model."""
    profile = one_thread(detect())
    ratios: dict[str, list[float]] = {field: [] for field in (*FIELDS, "plan")}
    models: dict[str, None] = {}
    for found in measure_all(profile, 0.2 if quick else 1.0):
        rules = profile.quantization[found.source.kind]
        recipe = families(profile, rules, found.target, ())[found.family][0]
        facts = gather(found.source, found.dimensions)
        predicted = family_fit(
            facts, profile, found.target, found.family, treatment(recipe), load_spread()
        )
        ratios["size"].append(found.size_bytes / predicted.size_bytes.value)
        ratios["peak"].append(found.peak_bytes / predicted.peak_bytes.value)
        ratios["latency"].append(found.latency_ms / predicted.latency_ms.value)
        ratios["plan"].append(found.peak_bytes / found.planned_bytes)
        models[found.source.name] = None
    here = machine()
    spread = Spread(
        **{field: _percentiles(ratios[field]) for field in FIELDS},
        samples=len(ratios["size"]),
        models=tuple(models),
        machine=here.cpu,
        engine=" and ".join(here.engines[name] for name in sorted(HOST_ENGINES.values())),
    )
    if not quick:
        SPREAD.write_bytes(msgspec.json.format(msgspec.json.encode(spread), indent=2) + b"\n")
    return Outcome(
        rows=(
            Row(
                f"`fit` on {spread.samples} variants of {len(models)} models: measured / predicted,"
                " tenth to ninetieth percentile",
                "; ".join(f"{field} {_text(_percentiles(ratios[field]))}" for field in FIELDS),
            ),
            Row(
                "memory plan of the same variants: measured / planned peak",
                f"{_text(_percentiles(ratios['plan']))}; "
                f"{np.mean(np.abs(np.array(ratios['plan']) - 1) <= 0.15):.0%} within 15 %",
            ),
        ),
        figures={
            f"{field}_p{percent}": round(float(np.percentile(values, percent)), 3)
            for field, values in ratios.items()
            for percent in (0, 10, 50, 90, 100)
        },
    )


def one_thread(profile: Profile) -> Profile:
    """The profile with one thread, which neighbours on the machine disturb least."""
    return msgspec.structs.replace(profile, cpu=msgspec.structs.replace(profile.cpu, threads=1))


def _percentiles(values: list[float]) -> Ratios:
    p10, p90 = (round(float(value), 3) for value in np.percentile(values, (10, 90)))
    return Ratios(p10=p10, p90=p90)


def _text(ratios: Ratios) -> str:
    return f"{ratios.p10:.2f} to {ratios.p90:.2f}"
