"""Whether a model would fit a device, before anything is converted or run.

``edge-sdk fit`` predicts size, peak memory and latency of every recipe family
that a profile's rules name. Each figure comes with the range that the same
prediction has shown on the repository's benchmark models: tenth to ninetieth
percentile of measured / predicted, from ``spread.json`` beside this file,
which ``python -m benchmarks fit`` writes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from converters import predict
from converters.costs import graph_costs
from converters.memory import memory_plan
from converters.recipes import families, prepare
from converters.shapes import bind
from converters.source import Source, open_source
from converters.target import target_engine
from device_profiles.loader import load_profile
from device_profiles.schema import Profile
from edge_sdk.bundle.record import Frozen, MemoryPlan, NodeCost, TensorSpec
from edge_sdk.errors import ConversionError, InputError
from edge_sdk.runtime.engines.onnx import CPU

TOKENS = 128
IMAGE_SIZE = 224
# In the name of a first dimension that is no batch.
SEQUENCES = ("seq", "step", "time", "frame", "token")
SPREAD = Path(__file__).with_name("spread.json")
Verdict = Literal["fits", "tight", "no"]


class Range(Frozen, frozen=True, kw_only=True):
    """A prediction, and what was measured in eight of ten cases where it was made."""

    value: float
    low: float
    high: float


class Ratios(Frozen, frozen=True, kw_only=True):
    """Tenth and ninetieth percentile of measured / predicted."""

    p10: float
    p90: float


class Spread(Frozen, frozen=True, kw_only=True):
    """How far predictions were off on the benchmark models.

    Attributes:
        size: Of the shipped size.
        peak: Of the peak memory.
        latency: Of the latency of one call.
        samples: Number of variants measured.
        models: The models they were made of.
        machine: Where they were measured.
        engine: Engine and version.
    """

    size: Ratios
    peak: Ratios
    latency: Ratios
    samples: int
    models: tuple[str, ...]
    machine: str
    engine: str


class FamilyFit(Frozen, frozen=True, kw_only=True):
    """What one recipe family would give on one profile.

    Attributes:
        recipe: The family.
        size_bytes: Graph and weights as shipped.
        peak_bytes: Peak resident memory of the process.
        latency_ms: One call with the profile's threads.
        verdict: ``fits`` with the whole range, ``tight`` with the prediction only, ``no``.
        reason: Which budget is exceeded by how much, or what is left of the tighter one.
    """

    recipe: str
    size_bytes: Range
    peak_bytes: Range
    latency_ms: Range
    verdict: Verdict
    reason: str


class ProfileFit(Frozen, frozen=True, kw_only=True):
    """The predictions for one profile.

    Attributes:
        profile: The profile's name.
        likely: The family that would win if all held the accuracy limit; ``None`` if none fits.
        memory_budget_bytes: What the profile lets a model use at its peak.
        storage_budget_bytes: What the profile lets bundles take on disk.
        memory_headroom_bytes: Memory budget minus the likely family's predicted peak.
        storage_headroom_bytes: Storage budget minus its predicted size.
        families: All families, in the profile's order.
        note: What the prediction does not cover on this profile; empty if nothing.
    """

    profile: str
    likely: str | None
    memory_budget_bytes: int
    storage_budget_bytes: int
    memory_headroom_bytes: int | None
    storage_headroom_bytes: int | None
    families: tuple[FamilyFit, ...]
    note: str = ""


class FitReport(Frozen, frozen=True, kw_only=True):
    """What ``edge-sdk fit --json`` prints.

    Attributes:
        source: The model's file.
        kind: Kind of network, which selects the profiles' rules.
        size_bytes: Size of its files.
        gflops: Arithmetic of one call, in 10⁹ operations.
        dimensions: Symbolic dimension -> value the prediction is made for.
        unknown_nodes: Nodes whose cost could not be computed; the prediction is too low by them.
        profiles: One entry per profile.
        spread: Where the ranges come from.
        seconds: Time taken.
    """

    source: str
    kind: str
    size_bytes: int
    gflops: float
    dimensions: dict[str, int]
    unknown_nodes: int
    profiles: tuple[ProfileFit, ...]
    spread: Spread
    seconds: float
    schema: str = "org.edge-sdk.fit/1"


@dataclass(frozen=True)
class Facts:
    """What all predictions for one model start from."""

    source: Source
    plan: MemoryPlan
    costs: tuple[NodeCost, ...]
    weights: Sequence[predict.Weight]
    unknown: int


def fit(
    path: Path, profiles: Sequence[str], dimensions: Mapping[str, int] | None = None
) -> FitReport:
    """Predicts what a model would need on some devices.

    Args:
        path: The model, in any format that ``edge-sdk convert`` reads.
        profiles: Profiles by name or file.
        dimensions: Values of symbolic input dimensions; usual ones by default.

    Raises:
        InputError: The model cannot be read, or a profile or dimension is unknown.
    """
    started = time.monotonic()
    known = [load_profile(name) for name in dict.fromkeys(profiles)]
    source = open_source(path)
    sizes = {**default_dimensions(source.inputs), **(dimensions or {})}
    _check_dimensions(source, sizes)
    facts, spread = gather(source, sizes), load_spread()
    return FitReport(
        source=str(path),
        kind=source.kind,
        size_bytes=source.size_bytes,
        gflops=round(sum(cost.flops for cost in facts.costs) / 1e9, 9),
        dimensions=sizes,
        unknown_nodes=facts.unknown,
        profiles=tuple(profile_fit(facts, profile, spread) for profile in known),
        spread=spread,
        seconds=round(time.monotonic() - started, 2),
    )


def gather(source: Source, dimensions: Mapping[str, int]) -> Facts:
    """Reads off the graph what predictions start from; weights are not read."""
    costs = graph_costs(source.model, dimensions)
    bound = bind(source.model, dimensions)
    return Facts(
        source=source,
        plan=memory_plan(source.model, dimensions),
        costs=costs.nodes,
        weights=predict.find_weights(source.model, bound, costs.nodes),
        unknown=costs.unknown,
    )


def profile_fit(facts: Facts, profile: Profile, spread: Spread) -> ProfileFit:
    """The predictions for one profile."""
    rules = profile.quantization[facts.source.kind]
    recipes = families(profile, rules, prepare(profile))
    found = tuple(
        family_fit(facts, profile, name, predict.treatment(variants[0]), spread)
        for name, variants in recipes.items()
    )
    likely = max(
        (family for family in found if family.verdict != "no"),
        key=lambda family: _value(family, facts, profile),
        default=None,
    )
    memory, storage = profile.memory.model_budget_mib << 20, profile.storage.budget_mib << 20
    return ProfileFit(
        profile=profile.name,
        likely=likely.recipe if likely else None,
        memory_budget_bytes=memory,
        storage_budget_bytes=storage,
        memory_headroom_bytes=memory - int(likely.peak_bytes.value) if likely else None,
        storage_headroom_bytes=storage - int(likely.size_bytes.value) if likely else None,
        families=found,
        note=_note(profile),
    )


def family_fit(
    facts: Facts, profile: Profile, family: str, how: predict.Treatment, spread: Spread
) -> FamilyFit:
    """The prediction for one recipe family."""
    size = predict.shipped_bytes(facts.source.size_bytes, facts.weights, how)
    peak = predict.loaded(facts.plan, facts.weights, how).peak
    expected = {str(name): value for name, value in profile.speedups.items()}.get(family, 1.0)
    gain = predict.speedup(facts.weights, how, expected)
    latency = predict.seconds(facts.costs, profile) * 1e3 / gain
    sizes, peaks = _range(size, spread.size), _range(peak, spread.peak)
    verdict, reason = judge(peaks, profile.memory.model_budget_mib << 20, "memory")
    on_disk = judge(sizes, profile.storage.budget_mib << 20, "storage")
    if ("fits", "tight", "no").index(on_disk[0]) > ("fits", "tight", "no").index(verdict):
        verdict, reason = on_disk
    return FamilyFit(
        recipe=family,
        size_bytes=sizes,
        peak_bytes=peaks,
        latency_ms=_range(latency, spread.latency),
        verdict=verdict,
        reason=reason,
    )


def judge(predicted: Range, budget: int, what: str) -> tuple[Verdict, str]:
    """Whether a prediction holds a budget in bytes, and by how much."""
    left = (budget - predicted.value) / 2**20
    if predicted.high <= budget:
        return "fits", f"{left:.0f} MiB of {what} left"
    if predicted.value <= budget:
        over = (predicted.high - budget) / 2**20
        return "tight", f"{left:.0f} MiB of {what} left, but up to {over:.0f} MiB short"
    return "no", f"{-left:.0f} MiB of {what} short"


def default_dimensions(inputs: Sequence[TensorSpec]) -> dict[str, int]:
    """Usual values for symbolic input dimensions: batch 1, 224 pixels, 128 tokens or steps."""
    found: dict[str, int] = {}
    for spec in inputs:
        rank = len(spec.shape or ())
        for axis, size in enumerate(spec.shape or ()):
            if isinstance(size, str):
                batch = axis == 0 and not any(word in size.lower() for word in SEQUENCES)
                usual = 1 if batch else IMAGE_SIZE if rank == 4 else TOKENS
                found[size] = min(usual, found.get(size, usual))
    return found


def load_spread() -> Spread:
    """How far predictions were off on the benchmark models."""
    return msgspec.json.decode(SPREAD.read_bytes(), type=Spread)


def _note(profile: Profile) -> str:
    try:
        engine = target_engine(profile)
    except ConversionError as error:
        return f"{error.message}; predicted as for ONNX Runtime on the CPU"
    accelerator = next((name for name in engine.providers if name != CPU), None)
    return f"predicted for the CPU, without {accelerator}" if accelerator else ""


def _check_dimensions(source: Source, sizes: Mapping[str, int]) -> None:
    symbols = {size for spec in source.inputs for size in spec.shape or () if isinstance(size, str)}
    for name, size in sizes.items():
        if name not in symbols or size < 1:
            raise InputError(
                f"{name}={size} is not a symbolic dimension with a size of at least 1",
                where="--dim",
                remedy=f"the model has: {', '.join(sorted(symbols)) or 'none'}",
            )


def _range(value: float, ratios: Ratios) -> Range:
    return Range(
        value=round(value, 3),
        low=round(value * min(ratios.p10, 1.0), 3),
        high=round(value * max(ratios.p90, 1.0), 3),
    )


def _value(family: FamilyFit, facts: Facts, profile: Profile) -> float:
    """The converter's objective without its accuracy term, which is not known yet."""
    ratio = facts.source.size_bytes / family.size_bytes.value
    return float(ratio**profile.objective.size_exponent / family.latency_ms.value)
