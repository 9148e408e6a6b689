"""What may be tried for a decoder: formats of weights, and how they are rounded.

A candidate is a :class:`Spec`; its recipe says the same on the wire::

    int4-b128-gptq     4 bits in blocks of 128, symmetric, rounded by GPTQ
    int4-b32-asym      4 bits in blocks of 32 with zero points, rounded to nearest
    int8-b32           8 bits in blocks of 32
    fp16, fp32         no blocks
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from converters.decoder.architecture import Architecture
from converters.decoder.names import nodes, parts
from converters.decoder.weights import Bits, WeightFormat, WeightPlan, Weights
from converters.recipes import step
from device_profiles.schema import Profile, RecipeFamily
from edge_sdk.bundle.record import Recipe, Step
from edge_sdk.errors import RecipeError

Method = Literal["nearest", "clip", "gptq", "stored"]

BLOCK_SIZES = (32, 128, 256)
# The formats that GGUF files keep their own blocks in.
STORED_FORMATS = (WeightFormat(4, 32), WeightFormat(8, 32), WeightFormat(4, 32, symmetric=False))
FAMILIES: tuple[RecipeFamily, ...] = ("int4-block", "int8-block", "fp16", "fp32")
_NAME = re.compile(r"int(4|8)-b(\d+)(-asym)?(?:-(clip|gptq))?")


@dataclass(frozen=True)
class Spec:
    """One candidate.

    Attributes:
        name: What the report calls it.
        plan: Formats of the weights.
        method: How weights in blocks are rounded: to nearest, with the range of least squared
            error, by GPTQ, or as the source has stored them.
        half: Activations are float16 too (for GPUs).
        forced: The user asked for it.
    """

    name: str
    plan: WeightPlan
    method: Method = "nearest"
    half: bool = False
    forced: bool = False

    @property
    def family(self) -> RecipeFamily:
        """The recipe family of its default format."""
        bits = self.plan.default.bits
        return {4: FAMILIES[0], 8: FAMILIES[1], 16: FAMILIES[2], 32: FAMILIES[3]}[bits]

    def with_nodes(self, name: str, changed: Mapping[str, WeightFormat]) -> Spec:
        """The same with other formats for some nodes."""
        plan = WeightPlan(self.plan.default, {**self.plan.nodes, **changed})
        return replace(self, name=name, plan=plan)

    def recipe(self, engine: str) -> Recipe:
        """How the record says it; fp32 has no steps."""
        steps: list[Step] = []
        if self.plan.default.bits in (4, 8):
            steps.append(_blocks_step(self.plan.default, method=self.method))
        elif self.half:
            steps.append(step("float16"))
        by_format: dict[WeightFormat, list[str]] = {}
        for node, wanted in self.plan.nodes.items():
            by_format.setdefault(wanted, []).append(node)
        steps += [_blocks_step(wanted, nodes=tuple(names)) for wanted, names in by_format.items()]
        return Recipe(name=self.name, steps=tuple(steps), engine=engine, forced=self.forced)


class BlockWeights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of the step ``block-weights`` in a decoder's recipe.

    Attributes:
        bits: 4 or 8; 16 or 32 leave nodes in float.
        block_size: Weights that share a scale.
        symmetric: No zero points.
        method: How to round; only in the step without ``nodes``.
        nodes: The nodes it is for; all of them by default.
    """

    bits: Bits = 4
    block_size: Literal[16, 32, 64, 128, 256] = 32
    symmetric: bool = True
    method: Method = "nearest"
    nodes: tuple[str, ...] = ()

    @property
    def format(self) -> WeightFormat:
        """The format it asks for."""
        return WeightFormat(self.bits, self.block_size, self.symmetric)


def specs_of(family: str, architecture: Architecture, weights: Weights) -> Iterator[Spec]:
    """The candidates of one recipe family; none where decoders cannot use it."""
    if family == "fp32":
        yield Spec("fp32", WeightPlan(WeightFormat(32)))
    elif family == "fp16":
        yield Spec("fp16", WeightPlan(WeightFormat(16)), half=True)
    elif family == "int8-block":
        for size in sorted({BLOCK_SIZES[0], _sizes(architecture)[-1]}):
            yield _block_spec(8, size)
        yield from _stored(architecture, weights, 8)
    elif family == "int4-block":
        stored = list(_stored(architecture, weights, 4))
        yield from stored
        for size in _sizes(architecture):
            if WeightFormat(4, size) not in [spec.plan.default for spec in stored]:
                for method in ("nearest", "clip", "gptq"):
                    yield _block_spec(4, size, method=method)
        yield _block_spec(4, _sizes(architecture)[-1], symmetric=False, method="gptq")


def specs_for(profile: Profile, architecture: Architecture, weights: Weights) -> list[Spec]:
    """All candidates of a profile, in its order of preference."""
    rules = profile.quantization["decoder"]
    found = (spec for name in rules.recipes for spec in specs_of(name, architecture, weights))
    return [spec for spec in found if suits(spec, profile, architecture)]


def suits(spec: Spec, profile: Profile, architecture: Architecture) -> bool:
    """Whether a profile's kernels are quick for a candidate's blocks.

    On ARM with dot product those of KleidiAI are, and they take only blocks that divide the
    input axis. Blocks of 32 are tried on any device.
    """
    wanted = spec.plan.default
    if "asimddp" not in profile.cpu.isa or wanted.bits not in (4, 8) or wanted.block_size == 32:
        return True
    return all(width % wanted.block_size == 0 for width in _widths(architecture))


def spec_from(recipe: Recipe, architecture: Architecture, weights: Weights) -> Spec:
    """The candidate that a recipe describes.

    Args:
        recipe: With steps, or with a name alone: a family, or a candidate's name.
        architecture: Of the source.
        weights: Of the source.

    Raises:
        RecipeError: The name or a step means nothing for a decoder.
    """
    if recipe.steps or recipe.name == "fp32":
        return replace(_from_steps(recipe, architecture), forced=recipe.forced)
    known = [s for family in FAMILIES for s in specs_of(family, architecture, weights)]
    families = list(specs_of(recipe.name, architecture, weights))
    found = [*families, *(spec for spec in known if spec.name == recipe.name)]
    if match := _NAME.fullmatch(recipe.name):
        bits, size, asymmetric, method = match.groups()
        options = {"bits": int(bits), "block_size": int(size), "symmetric": not asymmetric}
        named = _options({**options, "method": method or "nearest"}, recipe.name)
        found.append(Spec(recipe.name, WeightPlan(named.format), named.method))
    if not found:
        raise RecipeError(
            f"unknown recipe {recipe.name!r} for a decoder",
            where="name",
            remedy=f"use one of {', '.join(FAMILIES)}, a name like int4-b128-gptq, or steps",
        )
    return replace(found[0], forced=recipe.forced)


def _from_steps(recipe: Recipe, architecture: Architecture) -> Spec:
    default, half = WeightFormat(32), False
    method: Method = "nearest"
    changed: dict[str, WeightFormat] = {}
    known = nodes(architecture)
    for number, each in enumerate(recipe.steps):
        where = f"steps[{number}]"
        if each.op == "float16":
            default, half = WeightFormat(16), True
        elif each.op == "block-weights":
            options = _options(each.options, where)
            if unknown := sorted(set(options.nodes) - {*known, "embed"}):
                raise RecipeError(f"the model has no node {unknown[0]!r}", where=where)
            if options.nodes:
                changed |= dict.fromkeys(options.nodes, options.format)
            else:
                default, method = options.format, options.method
        else:
            raise RecipeError(
                f"a decoder has no step {each.op!r}",
                where=where,
                remedy="use block-weights or float16",
            )
    return Spec(recipe.name, WeightPlan(default, changed), method, half)


def _options(options: Mapping[str, Any], where: str) -> BlockWeights:
    try:
        found = msgspec.convert(options, BlockWeights)
    except msgspec.ValidationError as error:
        raise RecipeError(str(error), where=where) from None
    if found.bits != 4 and found.method in ("clip", "gptq"):
        raise RecipeError(
            f"{found.method} is for 4 bits",
            where=where,
            remedy="leave the method out: rounding to nearest loses nothing at 8 bits",
        )
    return found


def _block_spec(
    bits: Literal[4, 8], size: int, *, symmetric: bool = True, method: Method = "nearest"
) -> Spec:
    suffix = ("" if symmetric else "-asym") + ("" if method == "nearest" else f"-{method}")
    plan = WeightPlan(WeightFormat(bits, size, symmetric))
    return Spec(f"int{bits}-b{size}{suffix}", plan, method)


def _sizes(architecture: Architecture) -> tuple[int, ...]:
    """Block sizes no longer than any input axis."""
    shortest = min(_widths(architecture))
    return tuple(size for size in BLOCK_SIZES if size <= shortest) or BLOCK_SIZES[:1]


def _widths(architecture: Architecture) -> tuple[int, ...]:
    """Lengths of the input axes of all matrices."""
    return (
        architecture.hidden,
        architecture.intermediate,
        architecture.heads * architecture.head_dim,
    )


def _stored(architecture: Architecture, weights: Weights, bits: Literal[4, 8]) -> Iterator[Spec]:
    """The blocks that the source itself is made of."""
    for wanted in STORED_FORMATS:
        if wanted.bits == bits:
            plan = _stored_plan(wanted, architecture, weights)
            if plan is not None:
                suffix = "" if wanted.symmetric else "-asym"
                yield Spec(f"int{bits}-b{wanted.block_size}{suffix}-stored", plan, "stored")


def _stored_plan(
    default: WeightFormat, architecture: Architecture, weights: Weights
) -> WeightPlan | None:
    """Every node as it is stored, if the first layer is stored in ``default``."""

    def stored(node: str, wanted: WeightFormat) -> bool:
        names = ("embed",) if node == "head" and architecture.tied else parts(node)
        return all(weights.blocks(name, wanted) is not None for name in names)

    if not stored("layers.0.qkv", default):
        return None
    others = [wanted for wanted in STORED_FORMATS if wanted != default]
    found = {
        node: wanted for wanted in others for node in (*nodes(architecture), "embed")
        if stored(node, wanted)
    }  # fmt: skip
    return WeightPlan(default, found)


def _blocks_step(
    wanted: WeightFormat, *, method: Method | None = None, nodes: Sequence[str] = ()
) -> Step:
    options: dict[str, Any] = {"bits": wanted.bits}
    if wanted.bits in (4, 8):
        options |= {"block_size": wanted.block_size, "symmetric": wanted.symmetric}
    if method is not None:
        options["method"] = method
    if nodes:
        options["nodes"] = tuple(nodes)
    return step("block-weights", **options)
