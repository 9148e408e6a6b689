"""Candidates of benchmark models, built by the converter's own workshop and measured."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.models import MODELS
from converters.costs import reference_dimensions
from converters.data import split
from converters.describe import graph_inputs
from converters.measure import peak_rss
from converters.memory import candidate_plan
from converters.recipes import families, prepare
from converters.sampling import dataset_for, representative_calls
from converters.source import Source, open_source
from converters.target import Target, targets
from converters.workshop import Workshop
from device_profiles.schema import Profile, RecipeFamily
from edge_sdk.bundle.record import Recipe
from edge_sdk.errors import EdgeSdkError
from edge_sdk.runtime.engine import Session, SessionOptions
from edge_sdk.runtime.inputs import Array

SAMPLES = 8
EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass(frozen=True)
class Measured:
    """One candidate with what was predicted from its own graph and what was measured.

    Attributes:
        source: The model it was made of.
        target: The engine it was made for.
        family: The recipe family.
        dimensions: Symbolic dimensions of the call that was measured.
        size_bytes: As it ships.
        planned_bytes: Its memory plan's peak.
        peak_bytes: Peak memory of a fresh process.
        latency_ms: The quickest of many calls, one thread: what disturbs only adds.
    """

    source: Source
    target: Target
    family: RecipeFamily
    dimensions: Mapping[str, int]
    size_bytes: int
    planned_bytes: int
    peak_bytes: int
    latency_ms: float


def measure_all(profile: Profile, seconds: float) -> Iterator[Measured]:
    """Builds and measures what the profile's rules name, for benchmark and example models.

    Args:
        profile: Whose rules apply.
        seconds: Time for each candidate's latency.
    """
    with tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder:
        paths = [build(Path(folder)) for build in MODELS.values()]
        for number, path in enumerate((*paths, *sorted(EXAMPLES.glob("*/*.onnx")))):
            yield from _measure(open_source(path), profile, Path(folder) / str(number), seconds)


def _measure(source: Source, profile: Profile, folder: Path, seconds: float) -> Iterator[Measured]:
    folder.mkdir()
    calibration, evaluation = (half.take(range(min(SAMPLES, len(half))))
                               for half in split(dataset_for(source, None)))  # fmt: skip
    call = representative_calls(source, evaluation)[0]
    dimensions = reference_dimensions(graph_inputs(source.model), [call])
    workshop = Workshop(source, calibration, evaluation, folder)
    for target, family, recipe in first_variants(profile, source):
        try:
            built = workshop.build(recipe, prepare(profile, target))
            session = workshop.open(built, SessionOptions(threads=1))
        except EdgeSdkError:
            continue  # a family that this model has nothing for, or an operator the engine lacks
        yield Measured(
            source=source,
            target=target,
            family=family,
            dimensions=dimensions,
            size_bytes=built.size_bytes,
            planned_bytes=candidate_plan(built, dimensions).peak,
            peak_bytes=peak_rss(built.path, call, built.host_engine),
            latency_ms=quickest_ms(session, call, seconds),
        )


def first_variants(
    profile: Profile, source: Source
) -> Iterator[tuple[Target, RecipeFamily, Recipe]]:
    """The first recipe of every family, for every engine of a profile."""
    rules = profile.quantization[source.kind]
    for target in targets(profile):
        found = families(profile, rules, target, prepare(profile, target))
        yield from ((target, family, recipes[0]) for family, recipes in found.items())


def quickest_ms(session: Session, call: Mapping[str, Array], seconds: float) -> float:
    """The quickest of as many calls as fit in some time, at least five."""
    session.run(call)
    best, count, deadline = float("inf"), 0, time.perf_counter() + seconds
    while count < 5 or time.perf_counter() < deadline:
        started = time.perf_counter()
        session.run(call)
        best, count = min(best, time.perf_counter() - started), count + 1
    return best * 1e3
