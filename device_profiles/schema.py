"""What a device profile says, as typed values. Units are in the field names.

A profile is a TOML file; :mod:`device_profiles.loader` turns one into a
:class:`Profile` and explains every wrong field.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["decoder", "encoder", "vision", "generic"]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all sections: immutable, no unknown keys."""


class Platform(Section, frozen=True, kw_only=True):
    """The OCI platform that selects a variant."""

    os: str
    architecture: str
    variant: str | None = None


class Cpu(Section, frozen=True, kw_only=True):
    """Cores, instruction set and what they reach.

    ``isa`` uses Linux's feature names (``avx2``, ``avx512_vnni``, ``asimd``, ``asimddp`` …).
    ``fp32_gflops`` and ``int8_gops`` are sustained GEMM rates of one core.
    """

    cores: int
    isa: tuple[str, ...]
    fp32_gflops_per_core: float
    int8_gops_per_core: float
    threads: int


class Memory(Section, frozen=True, kw_only=True):
    """Memory of the whole device, and the share a model may use at its peak."""

    total_mib: int
    model_budget_mib: int
    bandwidth_gb_per_s: float


class Storage(Section, frozen=True, kw_only=True):
    """What bundles may take on disk."""

    budget_mib: int


class Power(Section, frozen=True, kw_only=True):
    """Power mode that the figures hold for."""

    mode: str
    watts: float


class EngineChoice(Section, frozen=True, kw_only=True):
    """One engine in order of preference."""

    name: str
    providers: tuple[str, ...] = ()
    options: dict[str, str] = {}


class Rules(Section, frozen=True, kw_only=True):
    """Quantization rules for one kind of model.

    Attributes:
        recipes: Names of recipe families to try, in the order the profile prefers them.
        activation: Element type of quantized activations.
        weight: Element type of quantized weights.
        symmetric_activation: Whether activations must have zero point 0 (TensorRT).
        float_bias: Whether a quantized node's bias stays float (no int32 QDQ bias).
        reduce_range: Whether weights use 7 bits (int8 kernels that saturate).
        reason: Why these rules suit this ISA.
    """

    recipes: tuple[str, ...]
    activation: Literal["uint8", "int8"] = "uint8"
    weight: Literal["int8", "uint8"] = "int8"
    symmetric_activation: bool = False
    float_bias: bool = False
    reduce_range: bool = False
    reason: str


class Objective(Section, frozen=True, kw_only=True):
    """What "best" means: ``speedup * size_ratio ** size_exponent``, larger is better."""

    size_exponent: float = 0.25


class Profile(Section, frozen=True, kw_only=True):
    """One device profile."""

    name: str
    title: str
    platform: Platform
    cpu: Cpu
    memory: Memory
    storage: Storage
    engines: tuple[EngineChoice, ...]
    quantization: dict[Kind, Rules]
    objective: Objective = Objective()
    power: Power | None = None
    standard_ops_only: bool = False
    speedups: dict[str, float] = {}
