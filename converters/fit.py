"""Whether a model would fit a device, before anything is converted or run.

``edge-sdk fit`` predicts size, peak memory and latency of every recipe family
that a profile's rules name. Each figure comes with the range that the same
prediction has shown on the repository's benchmark models: tenth to ninetieth
percentile of measured / predicted, from ``spread.json`` beside this file,
which ``python -m benchmarks fit`` writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters import predict
from converters.costs import graph_costs
from converters.decoder.fit import fit_decoder
from converters.decoder.source import DecoderSource
from converters.fit_report import (
    FamilyFit,
    FitReport,
    ProfileFit,
    Spread,
    family_verdict,
    known_targets,
    load_spreads,
    profile_summary,
    ranged,
    uncovered,
)
from converters.memory import memory_plan
from converters.memory_litert import litert_plan
from converters.opaque.source import OpaqueSource
from converters.recipes import families, prepare
from converters.seq2seq.fit import fit_seq2seq
from converters.seq2seq.source import Seq2SeqSource
from converters.shapes import bind
from converters.share import with_steps
from converters.source import Source, open_source, quiet
from converters.target import HOST_ENGINES, Target
from device_profiles.loader import load_profile
from device_profiles.schema import Profile, RecipeFamily
from edge_sdk.bundle.record import MemoryPlan, NodeCost, TensorSpec
from edge_sdk.errors import InputError

TOKENS = 128
IMAGE_SIZE = 224
# In the name of a first dimension that is no batch.
SEQUENCES = ("seq", "step", "time", "frame", "token")


@dataclass(frozen=True)
class Facts:
    """What all predictions for one model start from."""

    source: Source
    plan: MemoryPlan
    litert_plan: MemoryPlan
    costs: tuple[NodeCost, ...]
    weights: Sequence[predict.Weight]
    unknown: int


def fit(
    path: Path,
    profiles: Sequence[str],
    dimensions: Mapping[str, int] | None = None,
    progress: Callable[[str], None] = quiet,
) -> FitReport:
    """Predicts what a model would need on some devices.

    Args:
        path: The model, in any format that ``edge-sdk convert`` reads.
        profiles: Profiles by name or file.
        dimensions: Values of symbolic input dimensions; usual ones by default. A decoder
            has ``context`` and ``prompt``, an encoder-decoder model ``input`` and ``output``, in
            tokens.
        progress: Told what happens, where reading the model takes long.

    Raises:
        InputError: The model cannot be read, or a profile or dimension is unknown.
    """
    started = time.monotonic()
    known = [load_profile(name) for name in dict.fromkeys(profiles)]
    source = open_source(path, say=progress)
    if isinstance(source, DecoderSource):
        return fit_decoder(source, known, dimensions or {}, started)
    if isinstance(source, Seq2SeqSource):
        return fit_seq2seq(source, known, dimensions or {}, started)
    if isinstance(source, OpaqueSource):
        raise InputError(
            f"it has no graph to predict from: {source.why}",
            where=str(path),
            remedy="convert it: the report says what it needs",
        )
    sizes = {**default_dimensions(source.inputs), **(dimensions or {})}
    _check_dimensions(source, sizes)
    facts, spreads = gather(source, sizes), load_spreads()
    return FitReport(
        source=str(path),
        kind=source.kind,
        size_bytes=source.size_bytes,
        gflops=round(sum(cost.flops for cost in facts.costs) / 1e9, 9),
        dimensions=sizes,
        unknown_nodes=facts.unknown,
        profiles=tuple(profile_fit(facts, profile, spreads) for profile in known),
        spreads=spreads,
        seconds=round(time.monotonic() - started, 2),
    )


def gather(source: Source, dimensions: Mapping[str, int]) -> Facts:
    """Reads off the graph what predictions start from; weights are not read."""
    costs = graph_costs(source.model, dimensions)
    bound = bind(source.model, dimensions)
    return Facts(
        source=source,
        plan=memory_plan(source.model, dimensions),
        litert_plan=litert_plan(source.model, dimensions),
        costs=costs.nodes,
        weights=predict.find_weights(source.model, bound, costs.nodes),
        unknown=costs.unknown,
    )


def profile_fit(facts: Facts, profile: Profile, spreads: Mapping[str, Spread]) -> ProfileFit:
    """The predictions for one profile, each with the range of the engine that reads its format."""
    rules = profile.quantization[facts.source.kind]
    found = tuple(
        family_fit(
            facts,
            profile,
            target,
            name,
            predict.treatment(variants[0]),
            spreads[HOST_ENGINES[target.format]],
        )
        for target in known_targets(profile)
        for name, variants in families(profile, rules, target, prepare(profile, target)).items()
    )
    return profile_summary(
        profile, found, lambda family: _value(family, facts, profile), uncovered(profile)
    )


def family_fit(
    facts: Facts,
    profile: Profile,
    target: Target,
    family: RecipeFamily,
    how: predict.Treatment,
    spread: Spread,
) -> FamilyFit:
    """The prediction for one recipe family on one of the profile's engines."""
    graph_bytes = facts.source.graph_bytes or facts.source.size_bytes
    size = predict.shipped_bytes(graph_bytes, facts.weights, how)
    if target.format == "onnx":
        peak = predict.loaded(facts.plan, facts.weights, how).peak
    else:
        peak = predict.loaded_by_litert(facts.litert_plan, facts.weights, how).peak
    floats, expected = (profile.speedup(target.choice, name) for name in ("fp32", family))
    gain = floats * predict.speedup(facts.weights, how, expected / floats)
    if target.format == "tflite":
        gain = with_steps(gain, facts.costs)
    latency = predict.seconds(facts.costs, profile) * 1e3 / gain
    sizes, peaks = ranged(size, spread.size), ranged(peak, spread.peak)
    verdict, reason = family_verdict(sizes, peaks, profile)
    return FamilyFit(
        recipe=target.named(family),
        size_bytes=sizes,
        peak_bytes=peaks,
        latency_ms=ranged(latency, spread.latency),
        verdict=verdict,
        reason=reason,
    )


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


def _check_dimensions(source: Source, sizes: Mapping[str, int]) -> None:
    symbols = {size for spec in source.inputs for size in spec.shape or () if isinstance(size, str)}
    for name, size in sizes.items():
        if name not in symbols or size < 1:
            raise InputError(
                f"{name}={size} is not a symbolic dimension with a size of at least 1",
                where="--dim",
                remedy=f"the model has: {', '.join(sorted(symbols)) or 'none'}",
            )


def _value(family: FamilyFit, facts: Facts, profile: Profile) -> float:
    """The converter's objective without its accuracy term, which is not known yet."""
    ratio = facts.source.size_bytes / family.size_bytes.value
    return float(ratio**profile.objective.size_exponent / family.latency_ms.value)
