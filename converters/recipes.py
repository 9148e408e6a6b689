"""Recipe families: what a profile's rules mean as ordered passes.

A recipe is complete: applied to the source it gives the variant, so the one in
a bundle's record can be written to a file and given back with ``--recipe``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, get_args

import msgspec

from converters.passes.base import is_rewrite
from converters.target import Target
from device_profiles.schema import Profile, RecipeFamily, Rules
from edge_sdk.bundle.record import Recipe, Step
from edge_sdk.errors import RecipeError

SOURCE = Recipe(name="source")

Variants = Mapping[str, tuple[tuple[str, tuple[Step, ...]], ...]]
"""Recipe family -> (ending of the name, steps after the preparation) of its variants."""


def step(op: str, **options: Any) -> Step:
    """A step with its options."""
    return Step(op=op, options=options)


def prepare(
    profile: Profile, target: Target, fixed: Mapping[str, float] | None = None
) -> tuple[Step, ...]:
    """The float rewrites that all candidates of a profile for one of its engines start from.

    Args:
        profile: Whether contrib ops are allowed.
        target: The engine; only ONNX graphs have contrib ops, ``QLinear…``, ``STFT``.
        fixed: Scalar inputs that the user fixed, which select branches.
    """
    standard = profile.standard_ops_only or target.format != "onnx"
    fused = () if standard else (step("fuse-gelu"), step("residual-sum"))
    plain = (step("qoperator-to-qdq"), step("fourier-to-layers")) if standard else ()
    return (
        step("cleanup"),
        step("upgrade-opset"),
        step("infer-shapes"),
        step("fold-constants"),
        step("splice-branches", **({"fixed": dict(fixed)} if fixed else {})),
        *plain,
        step("fuse-batch-norm"),
        step("one-hot-to-gather"),
        step("constant-reshape"),
        step("fold-constants"),
        step("drop-expand"),
        step("fuse-layer-norm"),
        step("fold-attention-scale"),
        *fused,
        step("share-initializers"),
        step("cleanup"),
        step("infer-shapes"),
    )


def split_steps(recipe: Recipe) -> tuple[Step, ...]:
    """The recipe's leading float rewrites: what calibration sees is the graph after them."""
    return tuple(takewhile(lambda s: is_rewrite(s.op), recipe.steps))


def families(
    profile: Profile, rules: Rules, target: Target, prepared: tuple[Step, ...]
) -> dict[RecipeFamily, list[Recipe]]:
    """Recipe family -> its variants for one engine, in the profile's order of preference.

    Variants of one family have the same structure and so the same speed; the
    most accurate one stands for the family. Families that have no form in the
    engine's format are left out.
    """
    known = _known(profile, rules, target)
    return {
        family: [_recipe(family, variant, target, prepared) for variant in known[family]]
        for family in rules.recipes
        if family in known
    }


def _known(profile: Profile, rules: Rules, target: Target) -> Variants:
    return _for_onnx(profile, rules) if target.format == "onnx" else _for_tflite(rules)


def _recipe(
    family: str, variant: tuple[str, tuple[Step, ...]], target: Target, prepared: tuple[Step, ...]
) -> Recipe:
    ending, steps = variant
    name = target.named(f"{family}{ending}")
    return Recipe(name=name, steps=(*prepared, *steps), engine=target.choice.name)


def _for_onnx(profile: Profile, rules: Rules) -> Variants:
    # Tables as rows of int8: widened at load, a table of thousands of rows fills the memory.
    small = (step("quantize-embedding"), step("store-small"))
    stored = () if profile.standard_ops_only else small
    qdq = {
        "activation": rules.activation,
        "weight": rules.weight,
        "symmetric_activation": rules.symmetric_activation,
        "float_bias": rules.float_bias,
        "reduce_range": rules.reduce_range,
    }
    reduce = {"reduce_range": rules.reduce_range} if rules.reduce_range else {}
    # After smoothing, which has to see the products that it fuses.
    fused = () if profile.standard_ops_only else (step("fuse-attention"),)
    dynamic = (*fused, step("merge-projections"), step("dynamic-int8", **reduce), *small)
    return {
        "fp32": (("", fused),),
        "fp16": (("", (step("float16"),)),),
        "int8-stored": (("", (*fused, *small)),),
        "fp16-stored": (("", (*fused, step("store-small", storage="float16"))),),
        "int8-static": (*_static(qdq, stored), *_smoothed_static(rules, qdq, stored)),
        "int8-dynamic": (("", dynamic),),
        "int8-smooth": _smooth(dynamic),
        "int8-block": (("", (*fused, step("block-weights", bits=8), *small)),),
        "int4-block": (("", (*fused, step("block-weights", bits=4), *small)),),
    }


def _for_tflite(rules: Rules) -> Variants:
    """What LiteRT has kernels for; its integer kernels take int8 activations on every ISA.

    Weights that are quantized at all are computed with as int8 or, where their
    activations stay float, in hybrid kernels; nothing is stored small for its own sake
    but float16, which every engine that reads the format widens at load.
    """
    apart = (step("scales-apart"),) if rules.scales_apart else ()
    tables = (step("quantize-embedding"), *apart)
    qdq = {"activation": "int8", "weight": "int8", "dense_outputs": True}
    # LiteRT 2.14 knows one scale per weight only, and scales are put apart in dense layers.
    recurrent = {} if rules.scales_apart else {"recurrent": True}
    dynamic = (step("dynamic-int8", **recurrent), *tables)
    return {
        "fp32": (("", ()),),
        "fp16-stored": (("", (step("store-small", storage="float16"),)),),
        "int8-static": _static(qdq, tables),
        "int8-dynamic": (("", dynamic),),
        "int8-smooth": _smooth(dynamic),
    }


def _static(
    options: Mapping[str, Any], rest: tuple[Step, ...]
) -> tuple[tuple[str, tuple[Step, ...]], ...]:
    return tuple(
        (f"-{method}", (step("static-qdq", method=method, **options), *rest))
        for method in ("minmax", "percentile", "entropy")
    )


def _smoothed_static(
    rules: Rules, options: Mapping[str, Any], rest: tuple[Step, ...]
) -> tuple[tuple[str, tuple[Step, ...]], ...]:
    """Where static int8 is all the int8 there is: encoders need their outliers migrated."""
    if not rules.symmetric_activation:
        return ()
    static = step("static-qdq", method="minmax", **options)
    return tuple(
        (f"-smooth-a{alpha}", (step("smooth-quant", alpha=alpha), static, *rest))
        for alpha in (0.9, 0.8)
    )


def _smooth(dynamic: tuple[Step, ...]) -> tuple[tuple[str, tuple[Step, ...]], ...]:
    return tuple(
        (f"-a{alpha}", (step("smooth-quant", alpha=alpha), *dynamic)) for alpha in (0.8, 0.7)
    )


def family_of(recipe: Recipe) -> RecipeFamily | None:
    """The family a recipe's name says it belongs to; ``None`` for a recipe of the user's own."""
    found = [family for family in get_args(RecipeFamily) if recipe.name.startswith(family)]
    return max(found, key=len, default=None)


def with_options(recipe: Recipe, suffix: str, options: Mapping[str, Mapping[str, Any]]) -> Recipe:
    """The recipe with further options for some of its steps, under a longer name."""
    steps = tuple(
        Step(op=s.op, options={**s.options, **options[s.op]}) if s.op in options else s
        for s in recipe.steps
    )
    return msgspec.structs.replace(recipe, name=recipe.name + suffix, steps=steps)


def load_recipe(path: Path) -> Recipe:
    """Reads a recipe from a TOML file.

    ``steps`` may be left out; ``name`` is then a family and the profile's rules fill it in.
    ``engine`` may be left out too, or stand in the name (``int8-dynamic@litert``); it is
    then the profile's first engine that the recipe can be made for.

    Raises:
        RecipeError: The file is missing, not TOML, or has a wrong key or type.
    """
    try:
        text = path.read_bytes()
        recipe = msgspec.toml.decode(text, type=Recipe)
        given = msgspec.toml.decode(text)
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RecipeError(
            str(error),
            where=str(path),
            remedy="""write name = "int8-static", or a name and [[steps]] with op and options""",
        ) from None
    engine = given.get("engine", recipe.name.partition("@")[2])
    return msgspec.structs.replace(recipe, forced=True, engine=engine)


def completed(
    recipe: Recipe,
    profile: Profile,
    rules: Rules,
    engines: Sequence[Target],
    fixed: Mapping[str, float] | None = None,
) -> Recipe:
    """Fills in what a recipe file leaves out: the engine, and what a family means for it.

    Args:
        recipe: As it was read; its engine is empty where the file names none.
        profile: The device.
        rules: Its rules for this kind of model.
        engines: What its variants may be made for.
        fixed: Scalar inputs that the user fixed.

    Raises:
        RecipeError: The profile has no such engine, or the engine no such family.
    """
    wanted = [t for t in engines if recipe.engine in ("", t.choice.name)]
    if not wanted:
        raise RecipeError(
            f"the profile has no engine {recipe.engine!r} that is registered here",
            where=f"recipe {recipe.name!r}, profile {profile.name!r}",
            remedy=f"use one of: {', '.join(t.choice.name for t in engines)}",
        )
    if recipe.steps:
        return msgspec.structs.replace(recipe, engine=wanted[0].choice.name)
    family = recipe.name.partition("@")[0]
    for target in wanted:
        known = _known(profile, rules, target)
        if family in known:
            prepared = prepare(profile, target, fixed)
            found = _recipe(family, known[family][0], target, prepared)
            return msgspec.structs.replace(found, forced=recipe.forced)
    raise RecipeError(
        f"unknown recipe family {family!r}",
        where=f"profile {profile.name!r}",
        remedy=f"use one of: {', '.join(_known(profile, rules, wanted[0]))}",
    )
