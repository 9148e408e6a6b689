"""``edge-sdk fit`` for dialogue models: from the configuration alone, weights are not read.

The ranges come from ``spread.json`` beside this file, which
``python -m benchmarks llm.fit`` writes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.decoder import costs, predict
from converters.decoder.candidates import Spec, specs_of, suits
from converters.decoder.memory import memory_plan
from converters.decoder.source import DEFAULT_CONTEXT, DecoderSource, limited
from converters.decoder.weights import WeightFormat, WeightPlan
from converters.fit_report import (
    DecoderFit,
    FamilyFit,
    FitReport,
    ProfileFit,
    Range,
    Ratios,
    Spread,
    family_verdict,
    load_spreads,
    profile_summary,
    ranged,
    uncovered,
)
from device_profiles.schema import Profile
from edge_sdk.errors import InputError
from edge_sdk.runtime.generation.memory import KvType, kv_per_token

SPREAD = Path(__file__).with_name("spread.json")
ENGINE = "onnx"  # no other runs decoders
CONTEXT, PROMPT = 2048, 128
KV_TYPES: tuple[KvType, ...] = ("float32", "int8")


@dataclass(frozen=True)
class Question:
    """What is asked about a model.

    Attributes:
        source: The model.
        context: Tokens that the KV cache is to hold.
        prompt: Tokens of the prompt that an answer's speed is predicted for.
        spread: How far such predictions were off.
    """

    source: DecoderSource
    context: int
    prompt: int
    spread: Spread


def fit_decoder(
    source: DecoderSource,
    profiles: Sequence[Profile],
    dimensions: Mapping[str, int],
    started: float,
) -> FitReport:
    """Predicts what a dialogue model would need on some devices.

    Args:
        source: The model.
        profiles: The devices.
        dimensions: ``context`` and ``prompt`` in tokens; 2048 (or the model's context, if
            shorter) and 128 by default.
        started: When the whole began, by :func:`time.monotonic`.

    Raises:
        InputError: A dimension is unknown or out of range.
    """
    question = ask(source, dimensions, load_spreads(SPREAD)[ENGINE])
    matrices = costs.matrices(source.architecture, WeightPlan(WeightFormat(32)))
    return FitReport(
        source=str(source.path),
        kind="decoder",
        size_bytes=source.size_bytes,
        gflops=round(sum(matrix.flops for matrix in matrices) / 1e9, 9),
        dimensions={"context": question.context, "prompt": question.prompt},
        unknown_nodes=0,
        profiles=tuple(profile_fit(question, profile) for profile in profiles),
        spreads={ENGINE: question.spread},
        seconds=round(time.monotonic() - started, 2),
    )


def ask(source: DecoderSource, dimensions: Mapping[str, int], spread: Spread) -> Question:
    """The question with defaults filled in.

    Raises:
        InputError: A dimension is unknown or out of range.
    """
    longest = source.architecture.context
    context = dimensions.get("context", min(CONTEXT, longest))
    prompt = dimensions.get("prompt", min(PROMPT, context - 1))
    unknown = sorted(set(dimensions) - {"context", "prompt"})
    if unknown or not 1 <= prompt < context <= longest:
        raise InputError(
            f"{unknown[0]} is not known" if unknown else f"prompt {prompt}, context {context}",
            where="--dim",
            remedy=f"a dialogue model has prompt < context <= {longest}, in tokens",
        )
    kept = max(context, min(longest, DEFAULT_CONTEXT))
    return Question(limited(source, kept), context, prompt, spread)


def profile_fit(question: Question, profile: Profile) -> ProfileFit:
    """The predictions for one profile, one per family that decoders can use."""
    families = tuple(_families(question, profile))
    exponent = profile.objective.size_exponent

    def value(family: FamilyFit) -> float:
        """The converter's objective without its accuracy term, which is not known yet."""
        return float(family.size_bytes.value**-exponent / family.latency_ms.value)

    return profile_summary(profile, families, value, uncovered(profile))


def family_fit(question: Question, profile: Profile, spec: Spec) -> FamilyFit:
    """The prediction for one candidate."""
    architecture, spread = question.source.architecture, question.spread
    size = ranged(costs.shipped_bytes(architecture, spec.plan), spread.size)
    kv, peak = cache(question, profile, spec)
    seconds = predict.token_seconds(architecture, spec.plan, profile, question.prompt)
    ttft = predict.prompt_seconds(architecture, spec.plan, profile, question.prompt)
    verdict, reason = family_verdict(size, peak, profile)
    latency = ranged(seconds * 1e3, spread.latency)
    return FamilyFit(
        recipe=spec.family,
        size_bytes=size,
        peak_bytes=peak,
        latency_ms=latency,
        verdict=verdict,
        reason=reason,
        decoder=DecoderFit(
            candidate=spec.name,
            kv=kv,
            tokens_per_second=_per_second(latency),
            ttft_ms=ranged(ttft * 1e3, spread.ttft or Ratios(p10=1.0, p90=1.0)),
        ),
    )


def cache(question: Question, profile: Profile, spec: Spec) -> tuple[KvType, Range]:
    """Element type of the KV cache as the runtime will choose it, and the peak with it full."""
    plan = memory_plan(question.source.architecture, spec.plan, half=spec.half)
    budget = profile.memory.model_budget_mib << 20
    peaks: dict[KvType, Range] = {
        kv: ranged(
            plan.peak + question.context * kv_per_token(plan, question.source.generation, kv),
            question.spread.peak,
        )
        for kv in KV_TYPES
    }
    kv = next((kv for kv in KV_TYPES if peaks[kv].high <= budget), KV_TYPES[-1])
    return kv, peaks[kv]


def _families(question: Question, profile: Profile) -> Iterator[FamilyFit]:
    """Each family by its quickest candidate; larger blocks are quicker, so that is no guess."""
    source = question.source
    for family in profile.quantization["decoder"].recipes:
        found = [
            family_fit(question, profile, spec)
            for spec in specs_of(family, source.architecture, source.weights)
            if suits(spec, profile, source.architecture)
        ]
        if found:
            yield min(found, key=lambda fit: fit.latency_ms.value)


def _per_second(latency: Range) -> Range:
    return Range(
        value=round(1e3 / latency.value, 3),
        low=round(1e3 / latency.high, 3),
        high=round(1e3 / latency.low, 3),
    )
