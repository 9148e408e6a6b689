"""Recipe families: what a profile's rules mean as ordered passes.

A recipe is complete: applied to the source it gives the variant, so the one in
a bundle's record can be written to a file and given back with ``--recipe``.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, get_args

import msgspec

from converters.passes.base import is_rewrite
from device_profiles.schema import Profile, RecipeFamily, Rules
from edge_sdk.bundle.record import Recipe, Step
from edge_sdk.errors import RecipeError

SOURCE = Recipe(name="source")


def step(op: str, **options: Any) -> Step:
    """A step with its options."""
    return Step(op=op, options=options)


def prepare(profile: Profile, fixed: Mapping[str, float] | None = None) -> tuple[Step, ...]:
    """The float rewrites every candidate of a profile starts from.

    Args:
        profile: Whether contrib ops are allowed.
        fixed: Scalar inputs that the user fixed, which select branches.
    """
    fused = () if profile.standard_ops_only else (step("fuse-gelu"), step("residual-sum"))
    return (
        step("cleanup"),
        step("upgrade-opset"),
        step("infer-shapes"),
        step("fold-constants"),
        step("splice-branches", **({"fixed": dict(fixed)} if fixed else {})),
        step("fuse-batch-norm"),
        step("one-hot-to-gather"),
        step("constant-reshape"),
        step("fold-constants"),
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


def families(profile: Profile, rules: Rules, prepared: tuple[Step, ...]) -> dict[str, list[Recipe]]:
    """Recipe family -> its variants, in the profile's order of preference.

    Variants of one family have the same structure and so the same speed; the
    most accurate one stands for the family.
    """
    return {name: _variants(name, profile, rules, prepared) for name in rules.recipes}


def _variants(
    family: str, profile: Profile, rules: Rules, prepared: tuple[Step, ...]
) -> list[Recipe]:
    # Tables as rows of int8: widened at load, a table of thousands of rows fills the memory.
    small = (step("quantize-embedding"), step("store-small"))
    standard = profile.standard_ops_only
    qdq = {
        "activation": rules.activation,
        "weight": rules.weight,
        "symmetric_activation": rules.symmetric_activation,
        "float_bias": rules.float_bias,
        "reduce_range": rules.reduce_range,
    }
    reduce = {"reduce_range": rules.reduce_range} if rules.reduce_range else {}
    tails: dict[str, list[tuple[str, tuple[Step, ...]]]] = {
        "fp32": [("", ())],
        "fp16": [("", (step("float16"),))],
        "int8-stored": [("", small)],
        "fp16-stored": [("", (step("store-small", storage="float16"),))],
        "int8-static": [
            (f"-{method}", (step("static-qdq", method=method, **qdq), *(() if standard else small)))
            for method in ("minmax", "percentile", "entropy")
        ],
        "int8-dynamic": [("", (step("merge-projections"), step("dynamic-int8", **reduce), *small))],
        "int8-smooth": [
            (
                f"-a{alpha}",
                (
                    step("smooth-quant", alpha=alpha),
                    step("merge-projections"),
                    step("dynamic-int8", **reduce),
                    *small,
                ),
            )
            for alpha in (0.8, 0.7)
        ],
        "int8-block": [
            ("", (step("block-weights", bits=8), *small)),
        ],
        "int4-block": [
            ("", (step("block-weights", bits=4), *small)),
        ],
    }
    if family not in tails:
        raise RecipeError(
            f"unknown recipe family {family!r}",
            where=f"profile {profile.name!r}",
            remedy=f"use one of: {', '.join(tails)}",
        )
    return [
        Recipe(name=family + suffix, steps=(*prepared, *tail)) for suffix, tail in tails[family]
    ]


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

    Raises:
        RecipeError: The file is missing, not TOML, or has a wrong key or type.
    """
    try:
        recipe = msgspec.toml.decode(path.read_bytes(), type=Recipe)
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RecipeError(
            str(error),
            where=str(path),
            remedy="""write name = "int8-static", or a name and [[steps]] with op and options""",
        ) from None
    return msgspec.structs.replace(recipe, forced=True)


def completed(recipe: Recipe, profile: Profile, rules: Rules, prepared: tuple[Step, ...]) -> Recipe:
    """A recipe without steps names a family; this fills in what the family means here."""
    if recipe.steps:
        return recipe
    return msgspec.structs.replace(
        _variants(recipe.name, profile, rules, prepared)[0], forced=recipe.forced
    )
