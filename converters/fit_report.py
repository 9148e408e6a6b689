"""What ``edge-sdk fit`` says: predictions with the ranges they have shown, and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from converters.target import Target, targets
from device_profiles.schema import Profile
from edge_sdk.bundle.record import Frozen
from edge_sdk.errors import ConversionError
from edge_sdk.runtime.engines.onnx import CPU

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
        latency: Of the latency of one call; for decoders, of one token.
        samples: Number of variants measured.
        models: The models they were made of.
        machine: Where they were measured.
        engine: Engine and version.
        ttft: For decoders, of the time to the first token.
    """

    size: Ratios
    peak: Ratios
    latency: Ratios
    samples: int
    models: tuple[str, ...]
    machine: str
    engine: str
    ttft: Ratios | None = None


class DecoderFit(Frozen, frozen=True, kw_only=True):
    """What one recipe family would make of a dialogue model.

    Attributes:
        candidate: The family's member that is predicted.
        kv: Element type of the KV cache that the memory budget asks for.
        tokens_per_second: Decoding speed of one stream, prompt in the cache.
        ttft_ms: Time to the first token after the prompt.
    """

    candidate: str
    kv: str
    tokens_per_second: Range
    ttft_ms: Range


class FamilyFit(Frozen, frozen=True, kw_only=True):
    """What one recipe family would give on one profile.

    Attributes:
        recipe: The family.
        size_bytes: Graph and weights as shipped.
        peak_bytes: Peak resident memory of the process; for decoders with a full context.
        latency_ms: One call with the profile's threads; for decoders, one token.
        verdict: ``fits`` with the whole range, ``tight`` with the prediction only, ``no``.
        reason: Which budget is exceeded by how much, or what is left of the tighter one.
        decoder: Speed of text, for a decoder.
    """

    recipe: str
    size_bytes: Range
    peak_bytes: Range
    latency_ms: Range
    verdict: Verdict
    reason: str
    decoder: DecoderFit | None = None


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
        source: The model's file or folder.
        kind: Kind of network, which selects the profiles' rules.
        size_bytes: Size of its files.
        gflops: Arithmetic of one call, in 10⁹ operations; for decoders, of one token.
        dimensions: Symbolic dimension -> value the prediction is made for; decoders have
            ``context`` and ``prompt``, in tokens.
        unknown_nodes: Nodes whose cost could not be computed; the prediction is too low by them.
        profiles: One entry per profile.
        spreads: Engine -> where the ranges of its predictions come from.
        seconds: Time taken.
    """

    source: str
    kind: str
    size_bytes: int
    gflops: float
    dimensions: dict[str, int]
    unknown_nodes: int
    profiles: tuple[ProfileFit, ...]
    spreads: dict[str, Spread]
    seconds: float
    schema: str = "org.edge-sdk.fit/1"


def judge(predicted: Range, budget: int, what: str) -> tuple[Verdict, str]:
    """Whether a prediction holds a budget in bytes, and by how much."""
    left = (budget - predicted.value) / 2**20
    if predicted.high <= budget:
        return "fits", f"{left:.0f} MiB of {what} left"
    if predicted.value <= budget:
        over = (predicted.high - budget) / 2**20
        return "tight", f"{left:.0f} MiB of {what} left, but up to {over:.0f} MiB short"
    return "no", f"{-left:.0f} MiB of {what} short"


def ranged(value: float, ratios: Ratios) -> Range:
    """A prediction with the range that a spread gives it."""
    low, high = value * min(ratios.p10, 1.0), value * max(ratios.p90, 1.0)
    return Range(value=_digits(value), low=_digits(low), high=_digits(high))


def _digits(value: float) -> float:
    """Nine of them, enough for bytes, and something for microseconds too."""
    return float(f"{value:.9g}")


def family_verdict(size: Range, peak: Range, profile: Profile) -> tuple[Verdict, str]:
    """The stricter of the verdicts on a profile's memory and storage."""
    in_memory = judge(peak, profile.memory.model_budget_mib << 20, "memory")
    on_disk = judge(size, profile.storage.budget_mib << 20, "storage")
    order = ("fits", "tight", "no")
    return max(in_memory, on_disk, key=lambda verdict: order.index(verdict[0]))


def profile_summary(
    profile: Profile,
    families: tuple[FamilyFit, ...],
    value: Callable[[FamilyFit], float],
    note: str,
) -> ProfileFit:
    """All families of a profile, and the one of most value among those that fit."""
    fitting = (family for family in families if family.verdict != "no")
    likely = max(fitting, key=value, default=None)
    memory, storage = profile.memory.model_budget_mib << 20, profile.storage.budget_mib << 20
    return ProfileFit(
        profile=profile.name,
        likely=likely.recipe if likely else None,
        memory_budget_bytes=memory,
        storage_budget_bytes=storage,
        memory_headroom_bytes=memory - int(likely.peak_bytes.value) if likely else None,
        storage_headroom_bytes=storage - int(likely.size_bytes.value) if likely else None,
        families=families,
        note=note,
    )


def known_targets(profile: Profile) -> tuple[Target, ...]:
    """What to predict for; as for ONNX Runtime where no engine of the profile is known here."""
    try:
        return targets(profile)
    except ConversionError:
        return (Target(profile.engines[0], "onnx"),)


def uncovered(profile: Profile) -> str:
    """What a prediction does not cover on a profile; empty if nothing."""
    try:
        engines = targets(profile)
    except ConversionError as error:
        return f"{error.message}; predicted as for ONNX Runtime on the CPU"
    providers = [name for target in engines for name in target.choice.providers]
    accelerator = next((name for name in providers if name != CPU), None)
    return f"predicted for the CPU, without {accelerator}" if accelerator else ""


def load_spreads(file: Path = SPREAD) -> dict[str, Spread]:
    """Engine -> how far predictions were off on the benchmark models."""
    return msgspec.json.decode(file.read_bytes(), type=dict[str, Spread])


def store_spreads(file: Path, spreads: Mapping[str, Spread]) -> None:
    """Writes what :func:`load_spreads` reads."""
    file.write_bytes(msgspec.json.format(msgspec.json.encode(spreads), indent=2) + b"\n")
