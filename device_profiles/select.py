"""Chooses the profile that suits a machine best. Pure: facts in, a name out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from device_profiles.machine import Machine
from device_profiles.schema import ENGINES, Profile
from edge_sdk.errors import ProfileError

# Firmware, kernel and GPU keep a part of the memory that is printed on the box: a 512 MB
# Pi Zero 2 W reports 416 MiB, an 8 GB Orin Nano 7.4 GiB.
VISIBLE_SHARE = 0.75

_ACCELERATED, _ON_CPU, _ACCELERATOR_MISSING, _UNKNOWN = range(4)


class PlatformLike(Protocol):
    """An OCI platform: :class:`Platform` or the bundle format's own."""

    @property
    def os(self) -> str:
        """Operating system by its OCI name."""

    @property
    def architecture(self) -> str:
        """Architecture by its OCI name."""

    @property
    def variant(self) -> str | None:
        """Version of the architecture (``v7``), where that matters."""


def select(
    available: Mapping[str, PlatformLike],
    machine: Machine,
    known: Mapping[str, Profile] | None = None,
) -> str:
    """The best of some profiles for a machine.

    Of the profiles whose platform and CPU features the machine has, the one
    that uses an accelerator that is here wins over those for the CPU; then one whose
    engine is installed; then the one for the largest device that is not larger than this (the
    smallest device if all are larger: whether a model fits is the memory plan's word); then
    the one that uses more CPU features.

    Args:
        available: Profile name -> platform, as a bundle lists its variants.
        machine: The machine to serve.
        known: Profiles by name; by default those installed here. A profile that
            is not among them is judged by its platform alone.

    Raises:
        ProfileError: None suits; says what was available and what each lacks.
    """
    if known is None:
        from device_profiles.loader import profiles

        known = profiles(available)
    lacks = {name: _lacks(available[name], known.get(name), machine) for name in available}
    suitable = [name for name in available if not lacks[name]]
    if not suitable:
        here = _platform_text(machine.platform)
        listed = "".join(f"\n  {name}: {reason}" for name, reason in lacks.items())
        raise ProfileError(
            f"no profile suits this machine ({here}); available:{listed or ' none'}",
            remedy="convert for a profile of this machine (`edge-sdk profiles detect` writes one),"
            " or name one of the profiles yourself",
        )
    return min(suitable, key=lambda name: (*_rank(known.get(name), machine), name))


def select_here(available: Mapping[str, PlatformLike]) -> str:
    """The best of some profiles for the machine at hand; as :func:`select`, which raises."""
    from device_profiles.machine import detect_machine

    # Engines only rank what suits; of one profile there is nothing to rank.
    return select(available, detect_machine(engines=len(available) > 1))


def closest(candidates: Mapping[str, Profile], machine: Machine) -> Profile:
    """The profile most like a machine, even where the machine lacks CPU features it asks for.

    Raises:
        ProfileError: None is for this machine's architecture.
    """
    here = machine.platform.architecture
    same = [profile for profile in candidates.values() if profile.platform.architecture == here]
    if not same:
        raise ProfileError(f"no profile is for {here}")
    return min(
        same,
        key=lambda p: (len(set(p.cpu.isa) - machine.isa), *_rank(p, machine), p.name),
    )


def _lacks(platform: PlatformLike, profile: Profile | None, machine: Machine) -> str:
    """Why the machine cannot run it; empty if it can."""
    here = machine.platform
    if (platform.os, platform.architecture) != (here.os, here.architecture):
        return f"is for {_platform_text(platform)}"
    # Variants order by age; a newer 32-bit ARM runs older code. arm64 is always v8 here.
    if here.architecture == "arm" and (platform.variant or "v6") > (here.variant or "v6"):
        return f"is for {_platform_text(platform)}"
    missing = sorted(set(profile.cpu.isa) - machine.isa) if profile else []
    return f"needs {', '.join(missing)}, which this CPU lacks" if missing else ""


def _rank(profile: Profile | None, machine: Machine) -> tuple[int, bool, bool, int, int]:
    """Smaller is better."""
    if profile is None:
        return (_UNKNOWN, True, True, 0, 0)
    here = {engine.name for engine in machine.engines}
    total = profile.memory.total_mib
    larger = total * VISIBLE_SHARE > machine.memory_mib
    return (
        _accelerator_rank(profile, machine),
        not any(choice.name in here for choice in profile.engines),
        larger,
        total if larger else -total,
        -len(profile.cpu.isa),
    )


def _accelerator_rank(profile: Profile, machine: Machine) -> int:
    """An accelerator that is here beats the CPU, which beats one that is not here."""
    here = {
        (engine.name, provider)
        for engine in machine.engines
        for provider in engine.providers or ("",)
    }
    wanted = {
        (choice.name, provider)
        for choice in profile.engines
        for provider in choice.providers or ("",)
        if choice.name not in ENGINES or provider not in ("", "CPUExecutionProvider")
    }
    if wanted & here:
        return _ACCELERATED
    return _ACCELERATOR_MISSING if wanted else _ON_CPU


def _platform_text(platform: PlatformLike) -> str:
    return "/".join(filter(None, (platform.os, platform.architecture, platform.variant)))
