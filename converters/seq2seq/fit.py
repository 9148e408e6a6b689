"""``edge-sdk fit`` for encoder-decoder models: from the two graphs, weights are not read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np

from converters import predict
from converters.costs import graph_costs
from converters.fit_report import (
    DecoderFit,
    FamilyFit,
    FitReport,
    ProfileFit,
    Range,
    Spread,
    family_verdict,
    load_spreads,
    profile_summary,
    ranged,
    uncovered,
)
from converters.memory import ENGINE_BYTES, memory_plan
from converters.passes.graph_tools import static_shape
from converters.recipes import families, prepare
from converters.seq2seq.package import KIND, TEXT_BYTES
from converters.seq2seq.source import Seq2SeqSource
from converters.seq2seq.target import on_onnx, rules_of
from converters.shapes import bind
from converters.source import Source
from converters.target import Target
from device_profiles.schema import Profile, RecipeFamily
from edge_sdk.bundle.record import MemoryPlan, NodeCost, Recipe
from edge_sdk.errors import ConversionError, InputError
from edge_sdk.runtime.seq2seq.network import DECODER, ENCODER, TOKENS

ENGINE: Literal["onnx"] = "onnx"  # no other runs decoders whose past grows
INPUT, OUTPUT = "input", "output"
TOKENS_READ, TOKENS_WRITTEN = 128, 128


@dataclass(frozen=True)
class _Graph:
    """What predictions for one of the two graphs start from."""

    source: Source
    plan: MemoryPlan
    costs: tuple[NodeCost, ...]
    weights: Sequence[predict.Weight]
    unknown: int


@dataclass(frozen=True)
class _Question:
    """What is asked about a model, with lengths in tokens."""

    encoder: _Graph
    decoder: _Graph
    past_bytes: int
    spread: Spread


def fit_seq2seq(
    source: Seq2SeqSource,
    profiles: Sequence[Profile],
    dimensions: Mapping[str, int],
    started: float,
) -> FitReport:
    """Predicts what an encoder-decoder model would need on some devices.

    Args:
        source: The model.
        profiles: The devices.
        dimensions: ``input`` and ``output`` in tokens: 128, and what the model writes at most
            but no more than 128, by default. Inputs of a fixed size have no ``input``.
        started: When the whole began, by :func:`time.monotonic`.

    Raises:
        InputError: A dimension is unknown or out of range.
    """
    lengths = _lengths(source, dimensions)
    spread = load_spreads()[ENGINE]
    encoder = _gather(source.encoder, lengths.get(INPUT, 1))
    crossed = bind(source.encoder.model, dict(encoder.plan.reference_shapes))
    read = static_shape(crossed.graph.outputs[0]) or (1, 1, TOKENS_READ, 1)
    # A token in the middle of the output stands for all.
    decoder = _gather(source.decoder, read[2], past=lengths[OUTPUT] // 2)
    question = _Question(encoder, decoder, _past_bytes(source, lengths[OUTPUT]), spread)
    return FitReport(
        source=str(source.path),
        kind=KIND,
        size_bytes=source.size_bytes,
        gflops=round(sum(cost.flops for cost in decoder.costs) / 1e9, 9),
        dimensions=lengths,
        unknown_nodes=encoder.unknown + decoder.unknown,
        profiles=tuple(_profile_fit(question, profile) for profile in profiles),
        spreads={ENGINE: spread},
        seconds=round(time.monotonic() - started, 2),
    )


def _lengths(source: Seq2SeqSource, given: Mapping[str, int]) -> dict[str, int]:
    longest = source.decoding.context
    usual = {OUTPUT: min(source.decoding.max_length or TOKENS_WRITTEN, TOKENS_WRITTEN, longest)}
    if any(isinstance(size, str) for spec in source.inputs for size in (spec.shape or ())[1:]):
        usual = {INPUT: TOKENS_READ, **usual}
    unknown = sorted(given.keys() - usual.keys())
    found = {**usual, **given}
    if unknown or found[OUTPUT] > longest or min(found.values()) < 1:
        raise InputError(
            f"{unknown[0]} is not known" if unknown else f"{found}",
            where="--dim",
            remedy=f"this model has {' and '.join(usual)}, in tokens; {OUTPUT} <= {longest}",
        )
    return found


def _gather(source: Source, length: int, past: int = 0) -> _Graph:
    """Reads off a graph what predictions start from, for one token written."""
    sizes: dict[str, int] = {}
    carried = {state.input for state in source.states}
    for value in source.model.graph.inputs:
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int) and size.value is not None:
                written = value.name == TOKENS
                own = 1 if axis == 0 or written else past if value.name in carried else length
                sizes.setdefault(str(size.value), own)
    costs = graph_costs(source.model, sizes)
    bound = bind(source.model, sizes)
    return _Graph(
        source=source,
        plan=memory_plan(source.model, sizes),
        costs=costs.nodes,
        weights=predict.find_weights(source.model, bound, costs.nodes),
        unknown=costs.unknown,
    )


def _past_bytes(source: Seq2SeqSource, tokens: int) -> int:
    """The decoder's own keys and values, in two buffers."""
    carried = {state.input for state in source.decoder.states}
    specs = [value for value in source.decoder.model.graph.inputs if value.name in carried]
    row = sum(prod(size for size in v.shape or () if isinstance(size, int)) for v in specs)
    return 2 * tokens * row * np.dtype(np.float32).itemsize


def _profile_fit(question: _Question, profile: Profile) -> ProfileFit:
    """The predictions for one profile: each family on both graphs, where both may have it."""
    try:
        here = on_onnx(profile)
    except ConversionError as error:
        return profile_summary(profile, (), lambda family: 0.0, error.message)
    size = question.encoder.source.size_bytes + question.decoder.source.size_bytes

    def value(family: FamilyFit) -> float:
        """The converter's objective without its accuracy term, which is not known yet."""
        ratio = size / family.size_bytes.value
        return float(ratio**profile.objective.size_exponent / family.latency_ms.value)

    return profile_summary(profile, tuple(_families(question, here)), value, uncovered(here))


def _families(question: _Question, profile: Profile) -> Iterator[FamilyFit]:
    target = Target(profile.engines[0], ENGINE)
    found = {
        graph: families(profile, rules_of(profile, graph), target, prepare(profile, target))
        for graph in (ENCODER, DECODER)
    }
    for name, variants in found[DECODER].items():
        # What is for decoders alone goes with the encoder as it is.
        other: RecipeFamily = name if name in found[ENCODER] else "fp32"
        first = found[ENCODER].get(other, variants)[0]
        yield _family_fit(question, profile, target, (other, first), (name, variants[0]))


def _family_fit(
    question: _Question,
    profile: Profile,
    target: Target,
    encoder: tuple[RecipeFamily, Recipe],
    decoder: tuple[RecipeFamily, Recipe],
) -> FamilyFit:
    """The prediction for a recipe family of each graph."""
    spread, size, peak = question.spread, 0, question.past_bytes + TEXT_BYTES - ENGINE_BYTES
    seconds = []
    for graph, (family, recipe) in ((question.encoder, encoder), (question.decoder, decoder)):
        how = predict.treatment(recipe)
        file = graph.source.graph_bytes or graph.source.size_bytes
        size += predict.shipped_bytes(file, graph.weights, how)
        peak += predict.loaded(graph.plan, graph.weights, how).peak
        floats, expected = (
            profile.speedup(target.choice, "fp32"),
            profile.speedup(target.choice, family),
        )
        gain = floats * predict.speedup(graph.weights, how, expected / floats)
        seconds.append(predict.seconds(graph.costs, profile) / gain)
    sizes, peaks = ranged(size, spread.size), ranged(peak, spread.peak)
    verdict, reason = family_verdict(sizes, peaks, profile)
    latency = ranged(1e3 * seconds[1], spread.latency)
    name = decoder[0] if encoder[0] == decoder[0] else f"{encoder[0]}+{decoder[0]}"
    return FamilyFit(
        recipe=name,
        size_bytes=sizes,
        peak_bytes=peaks,
        latency_ms=latency,
        verdict=verdict,
        reason=reason,
        decoder=DecoderFit(
            candidate=name,
            kv="float32",
            tokens_per_second=_per_second(latency),
            ttft_ms=ranged(1e3 * sum(seconds), spread.latency),
        ),
    )


def _per_second(latency: Range) -> Range:
    low, value, high = (round(1e3 / ms, 3) for ms in (latency.high, latency.value, latency.low))
    return Range(value=value, low=low, high=high)
