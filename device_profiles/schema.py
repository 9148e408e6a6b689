"""What a device profile says, as typed values. Units are in the field names.

A profile is a TOML file; :mod:`device_profiles.loader` turns one into a
:class:`Profile` and explains every wrong field.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Kind = Literal["decoder", "encoder", "vision", "generic"]
RecipeFamily = Literal[
    "int8-smooth",  # dynamic int8 after moving activation outliers into the weights
    "int8-dynamic",  # weights per channel, activations quantized at run time
    "int8-static",  # QDQ with calibrated activation ranges
    "int8-block",  # weights in blocks of 8 bits (MatMulNBits)
    "int4-block",  # weights in blocks of 4 bits (MatMulNBits)
    "int8-stored",  # int8 on disk, folded to fp32 when loaded
    "fp16-stored",  # weights stored as float16, restored to fp32 at load
    "fp16",
    "fp32",
]

ENGINES = ("onnx", "litert")
"""Engines that need no plug-in; without an accelerator's provider both run on the CPU."""

Count = Annotated[int, msgspec.Meta(gt=0)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all sections: immutable, no unknown keys."""


class Platform(Section, frozen=True, kw_only=True):
    """The OCI platform that selects a variant."""

    os: Literal["linux"]
    architecture: Literal["amd64", "arm64", "arm"]
    variant: Literal["v6", "v7", "v8"] | None = None


class Cpu(Section, frozen=True, kw_only=True):
    """Cores, instruction set and what they reach.

    Attributes:
        cores: Cores that inference may use.
        isa: Features the variants rely on, by Linux's names (``/proc/cpuinfo``):
            a machine without one of them is not given this profile's variant.
        fp32_gflops_per_core: Sustained fp32 GEMM rate of one core.
        int8_gops_per_core: Sustained int8 GEMM rate of one core.
        threads: Intra-op threads of one session.
    """

    cores: Count
    isa: tuple[str, ...]
    fp32_gflops_per_core: Positive
    int8_gops_per_core: Positive
    threads: Count


class Memory(Section, frozen=True, kw_only=True):
    """Memory of the whole device, and the share a model may use at its peak.

    ``total_mib`` is the nominal size (what the vendor prints on the box);
    ``bandwidth_gb_per_s`` is what all cores together sustain when reading.
    """

    total_mib: Count
    model_budget_mib: Count
    bandwidth_gb_per_s: Positive


class Storage(Section, frozen=True, kw_only=True):
    """What bundles may take on disk."""

    budget_mib: Count


class Power(Section, frozen=True, kw_only=True):
    """Power mode that the figures hold for."""

    mode: str
    watts: Positive


class EngineChoice(Section, frozen=True, kw_only=True):
    """One engine in order of preference.

    Attributes:
        name: ``onnx``, ``litert``, or an engine that a plug-in brings.
        providers: Execution providers in order of preference; empty means the engine's default.
        options: The engine's own options, in its own names.
        recipe_options: Further options that only one recipe family needs.
        speedups: Recipe family -> expected speed on this engine over the fp32 source on
            ONNX Runtime; families that are not in it have the profile's.
    """

    name: Name
    providers: tuple[str, ...] = ()
    options: dict[str, str] = {}
    recipe_options: dict[RecipeFamily, dict[str, str]] = {}
    speedups: dict[RecipeFamily, Positive] = {}

    def options_for(self, family: RecipeFamily) -> dict[str, str]:
        """The options of a session for a variant of one recipe family."""
        return {**self.options, **self.recipe_options.get(family, {})}


class Rules(Section, frozen=True, kw_only=True):
    """Quantization rules for one kind of model.

    Attributes:
        recipes: Recipe families to try, in the order the profile prefers them.
        activation: Element type of quantized activations.
        weight: Element type of quantized weights.
        symmetric_activation: Whether activations must have zero point 0 (TensorRT).
        float_bias: Whether a quantized node's bias stays float (no int32 QDQ bias).
        reduce_range: Whether weights use 7 bits (int8 kernels that saturate).
        scales_apart: Whether dense layers of float activations multiply by the scales of
            their columns after the product (kernels that know one scale per weight).
        reason: Why these rules suit this ISA.
    """

    recipes: tuple[RecipeFamily, ...]
    activation: Literal["uint8", "int8"] = "uint8"
    weight: Literal["int8", "uint8"] = "int8"
    symmetric_activation: bool = False
    float_bias: bool = False
    reduce_range: bool = False
    scales_apart: bool = False
    reason: str


class Objective(Section, frozen=True, kw_only=True):
    """What "best" means: ``speedup * size_ratio ** size_exponent``, larger is better."""

    size_exponent: Annotated[float, msgspec.Meta(ge=0)] = 0.4


class Profile(Section, frozen=True, kw_only=True):
    """One device profile.

    Attributes:
        name: What commands and bundles call it.
        title: What it is, in a few words.
        platform: The OCI platform of its variants.
        cpu: Cores, instruction set, rates.
        memory: Total, model budget, bandwidth.
        storage: What bundles may take on disk.
        engines: Engines that variants are made for, in order of preference; at least one.
        quantization: Rules for every kind of model.
        objective: What "best" means on this device.
        power: Power mode that the figures hold for, where the device has modes.
        standard_ops_only: Whether graphs must do without contrib operators (TensorRT).
        speedups: Recipe family -> expected speed over fp32; the cost model's word
            where neither this ISA nor the device can be measured.
    """

    name: Name
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
    speedups: dict[RecipeFamily, Positive] = {}

    def speedup(self, engine: EngineChoice, family: RecipeFamily) -> float:
        """Expected speed of a family on one of the engines, over the fp32 source."""
        return engine.speedups.get(family, self.speedups.get(family, 1.0))
