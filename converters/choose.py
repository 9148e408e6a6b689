"""The choice among measured candidates: pure arithmetic over typed values.

Every candidate gets one figure, larger is better::

    value = speedup * size_ratio ** size_exponent * exp(-drop / max_drop)

so a candidate that uses up its whole accuracy allowance must be e times better
to win, and one that loses nothing keeps its full value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from converters.workshop import Built
from device_profiles.schema import Profile
from edge_sdk.bundle.measurements import DeviceFigures
from edge_sdk.bundle.record import Agreement

# Two medians on an ordinary machine differ by this much without a cause.
NOISE = 0.03
# … and two short glances by this much.
GLANCE = 0.1
# Candidates that are looked at thoroughly before one is chosen.
FINALISTS = 3


@dataclass(frozen=True)
class Judged:
    """A candidate with everything that decides about it.

    Attributes:
        built: The candidate.
        agreement: Against the source, on all evaluation data that was used.
        speedup: Source latency over candidate latency, measured or predicted.
        measured: Whether ``speedup`` was measured on the profile's engine and ISA.
        peak_bytes: Predicted peak memory on the device.
        latency_ms: Median on this host.
        confirmed: Whether latency was measured thoroughly, not only glanced at.
        device: What a real device measured, where one was asked.
    """

    built: Built
    agreement: Agreement
    speedup: float
    measured: bool
    peak_bytes: int
    latency_ms: float | None = None
    confirmed: bool = True
    device: DeviceFigures | None = None

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.built.recipe.name


@dataclass(frozen=True)
class Limits:
    """What a candidate must hold to ship.

    Attributes:
        max_drop: Largest drop against the source.
        budget_bytes: Largest peak memory.
        source_bytes: Size of the source, which sizes are ratios to.
        size_exponent: Weight of the size in a candidate's value.
        engines: Engines that variants are made for; empty allows all.
    """

    max_drop: float
    budget_bytes: int
    source_bytes: int
    size_exponent: float
    engines: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, profile: Profile, max_drop: float, source_bytes: int, engines: Iterable[str] = ()
    ) -> Limits:
        """The limits a profile sets."""
        return cls(
            max_drop, profile.memory.model_budget_mib << 20, source_bytes,
            profile.objective.size_exponent, tuple(engines),
        )  # fmt: skip


def value(candidate: Judged, limits: Limits, drop: float | None = None) -> float:
    """How good a candidate is; ``drop`` replaces its own, for "what if"."""
    lost = candidate.agreement.drop if drop is None else drop
    size_ratio = limits.source_bytes / candidate.built.size_bytes
    allowance = math.exp(-max(lost, 0.0) / limits.max_drop) if limits.max_drop > 0 else 1.0
    return float(candidate.speedup * size_ratio**limits.size_exponent * allowance)


def objection(candidate: Judged, limits: Limits) -> str | None:
    """Why a candidate may not ship, or ``None`` if it may."""
    drop, peak = candidate.agreement.drop, candidate.peak_bytes
    engine = candidate.built.recipe.engine
    if candidate.device is not None and candidate.device.error:
        return f"does not run on the device: {candidate.device.error}"
    if limits.engines and engine not in limits.engines:
        return f"no engine of the profile runs it: it is for {engine!r}"
    if not drop <= limits.max_drop:  # also true for NaN
        return f"{candidate.agreement.drop_of} {drop:.4g} exceeds --max-drop {limits.max_drop:g}"
    if peak > limits.budget_bytes:
        return (
            f"peak memory {peak / 2**20:.0f} MiB exceeds the budget of "
            f"{limits.budget_bytes / 2**20:.0f} MiB"
        )
    return None


def is_slower(candidate: Judged) -> bool:
    """Whether a candidate is slower than its source beyond noise."""
    return candidate.speedup < 1 - (NOISE if candidate.confirmed else GLANCE)


def finalists_of(candidates: Iterable[Judged], limits: Limits) -> list[Judged]:
    """The best candidates that hold the limits, none slower than the source if that is possible."""
    allowed = [c for c in candidates if objection(c, limits) is None]
    ranked = sorted(allowed, key=lambda c: -value(c, limits))
    return [c for c in ranked if not is_slower(c)][:FINALISTS] or ranked[:FINALISTS]


def standing(candidate: Judged, limits: Limits, problem: str | None) -> tuple[str, str]:
    """Status and reason of a candidate that was not chosen; ``problem`` is what is against it."""
    if problem:
        return "rejected", problem
    if is_slower(candidate):
        return "rejected", f"slower than the source: {candidate.speedup:.2f}x"
    return "qualified", f"value {value(candidate, limits):.2f}"


def choose(candidates: list[Judged], limits: Limits) -> tuple[Judged | None, str]:
    """Picks the best candidate that holds all limits.

    One that is slower than its source wins only if nothing quicker holds the limits: the
    source itself needs too much memory, or the profile has no engine for it.

    Returns:
        The choice and the reason, or ``None`` and which limit failed by how much.
    """
    allowed = [c for c in candidates if objection(c, limits) is None]
    quick = [c for c in allowed if not is_slower(c)]
    if quick:
        best = max(quick, key=lambda c: value(c, limits))
        originals = [c for c in quick if not c.built.recipe.steps]
        source = max(originals, key=lambda c: value(c, limits), default=best)
        if value(best, limits) <= value(source, limits) * (1 + NOISE):
            best = source  # what differs by noise alone is no reason to change a model
        basis = "measured here" if best.measured else "predicted by the profile's rules"
        if best.device is not None:
            basis = "measured on the device"
        return (
            best,
            f"best of {len(quick)} finalists, value {value(best, limits):.2f}; speed {basis}",
        )
    if allowed:
        best = max(allowed, key=lambda c: value(c, limits))
        return best, "slower than the source, but nothing quicker holds the limits"
    engines = limits.engines
    able = [c for c in candidates if not engines or c.built.recipe.engine in engines]
    closest = min(able or candidates, key=lambda c: c.agreement.drop, default=None)
    if closest is None:
        return None, "no candidate could be built"
    return None, f"closest is {closest.name}: {objection(closest, limits)}"
