"""Makes a profile of a machine: its facts and measured rates over the closest known rules."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from device_profiles import procfs
from device_profiles.isa import INT8_DOT_PRODUCT, int8_gain
from device_profiles.loader import profiles
from device_profiles.machine import Machine, detect_machine
from device_profiles.schema import Cpu, EngineChoice, Memory, Profile, Storage
from device_profiles.select import closest
from device_profiles.speed import Speed, measure_speed

_MIB = 1024 * 1024


def detect(name: str = "detected") -> Profile:
    """The profile of the machine this runs on; takes about a second.

    Args:
        name: What to call the profile.

    Raises:
        ProfileError: It does not run Linux, or on an unsupported architecture.
        WorkError: Its speed could not be measured.
    """
    root = Path("/")
    machine = detect_machine()
    speed = measure_speed(
        cores=machine.cores,
        cache_bytes=procfs.last_level_cache_bytes(root),
        memory_mib=machine.memory_mib,
    )
    free_mib = shutil.disk_usage(root).free // _MIB
    return describe(machine, speed, free_mib, name=name, known=profiles())


def describe(
    machine: Machine,
    speed: Speed,
    free_storage_mib: int,
    *,
    name: str,
    known: Mapping[str, Profile],
) -> Profile:
    """A profile for a machine, with the quantization rules of the closest known profile.

    Args:
        machine: What the machine is.
        speed: What was measured on it.
        free_storage_mib: Free disk space; bundles may take half of it.
        name: What to call the profile.
        known: Profiles to take rules, engine options and speedups from.

    Raises:
        ProfileError: None of ``known`` is for the machine's architecture.
    """
    base = closest(known, machine)
    share = base.memory.model_budget_mib / base.memory.total_mib
    fp32 = _rounded(speed.fp32_gflops_per_core)
    profile = msgspec.structs.replace(
        base,
        name=name,
        title=machine.title,
        platform=machine.platform,
        cpu=Cpu(
            cores=machine.cores,
            isa=tuple(sorted(machine.isa)),
            fp32_gflops_per_core=fp32,
            int8_gops_per_core=_rounded(fp32 * int8_gain(machine.isa)),
            threads=machine.cores,
        ),
        memory=Memory(
            total_mib=machine.memory_mib,
            model_budget_mib=max(1, int(machine.memory_mib * share)),
            bandwidth_gb_per_s=_rounded(speed.bandwidth_gb_per_s),
        ),
        storage=Storage(budget_mib=max(1, free_storage_mib // 2)),
        engines=_installed(base, machine),
        power=None,  # the base's mode is not known to be this machine's
    )
    return _for_saturating_int8(profile) if _saturates(machine) else profile


def _installed(base: Profile, machine: Machine) -> tuple[EngineChoice, ...]:
    """The base's engines and providers that are here; all of them if none is."""
    here = {engine.name: engine.providers for engine in machine.engines}
    choices = []
    for choice in base.engines:
        providers = tuple(p for p in choice.providers if p in here.get(choice.name, ()))
        if choice.name in here and (providers or not choice.providers):
            choices.append(msgspec.structs.replace(choice, providers=providers))
    return tuple(choices) or base.engines


def _saturates(machine: Machine) -> bool:
    """Whether U8S8 products overflow: x86 adds pairs of them in 16 bits without VNNI."""
    return machine.platform.architecture == "amd64" and not machine.isa & INT8_DOT_PRODUCT


def _for_saturating_int8(profile: Profile) -> Profile:
    rules = {
        kind: msgspec.structs.replace(
            rules,
            reduce_range=True,
            reason=f"{rules.reason} This CPU has no VNNI: 7-bit weights keep sums in 16 bits.",
        )
        for kind, rules in profile.quantization.items()
    }
    return msgspec.structs.replace(profile, quantization=rules)


def _rounded(rate: float) -> float:
    """Three significant digits: more would be noise."""
    return float(f"{rate:.3g}")
