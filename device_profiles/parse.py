"""TOML text to :class:`Profile` and back, with every wrong field explained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, get_args

import msgspec

from device_profiles.isa import FEATURES
from device_profiles.schema import ENGINES, EngineChoice, Kind, Profile
from edge_sdk.errors import ProfileError
from edge_sdk.toml_files import Problem, loads, shape, suggest


def parse(text: str, file: str) -> Profile:
    """Reads a profile from TOML text.

    Args:
        text: The TOML document.
        file: What errors call the document.

    Raises:
        ProfileError: Names the file, each wrong key, and the values allowed there.
    """
    try:
        raw = loads(text)
    except ValueError as error:
        raise ProfileError(f"not valid TOML: {error}", where=file) from None
    problems = list(shape(raw, Profile))
    if not problems:
        profile = msgspec.convert(raw, Profile)
        problems = list(_sense(profile))
    if problems:
        raise _error(problems, file)
    return profile


def to_toml(profile: Profile) -> str:
    """The profile as a TOML document that :func:`parse` reads back to an equal value."""
    import tomli_w  # only `detect` writes

    return tomli_w.dumps(_present(msgspec.to_builtins(profile)))


def _error(problems: list[Problem], file: str) -> ProfileError:
    remedy = "`edge-sdk profiles show x86-64` prints a complete, valid profile"
    if len(problems) == 1:
        return ProfileError(problems[0].message, where=f"{file}: {problems[0].key}", remedy=remedy)
    lines = "".join(f"\n  {key}: {message}" for key, message in problems)
    return ProfileError(f"{len(problems)} wrong fields{lines}", where=file, remedy=remedy)


def _sense(profile: Profile) -> Iterator[Problem]:
    """Fields that are each valid but do not fit together."""
    cpu, memory = profile.cpu, profile.memory
    if memory.model_budget_mib > memory.total_mib:
        allowed = f"1 to memory.total_mib ({memory.total_mib})"
        yield Problem("memory.model_budget_mib", f"{memory.model_budget_mib} is not {allowed}")
    if cpu.threads > cpu.cores:
        yield Problem("cpu.threads", f"{cpu.threads} is not 1 to cpu.cores ({cpu.cores})")
    if profile.platform.architecture == "arm" and profile.platform.variant is None:
        yield Problem("platform.variant", "32-bit ARM needs one; allowed: v6, v7, v8")
    features = FEATURES[profile.platform.architecture]
    for index, feature in enumerate(cpu.isa):
        if feature not in features:
            allowed = f"allowed on {profile.platform.architecture}: {', '.join(features)}"
            yield Problem(f"cpu.isa[{index}]", f"unknown feature {feature!r}; {allowed}")
    yield from _engines(profile.engines)
    for kind in get_args(Kind):
        rules = profile.quantization.get(kind)
        key = f"quantization.{kind}"
        if rules is None:
            yield Problem(key, "missing; every kind of model needs a table with its rules")
        elif not rules.recipes:
            yield Problem(f"{key}.recipes", "empty; name at least one, fp32 as the last resort")
        elif repeated := [name for name, n in Counter(rules.recipes).items() if n > 1]:
            yield Problem(f"{key}.recipes", f"{repeated[0]!r} is there twice")


def _engines(engines: tuple[EngineChoice, ...]) -> Iterator[Problem]:
    if engines and all(engine.name in ENGINES for engine in engines):
        return
    from importlib.metadata import entry_points  # slow, and only plug-ins need it

    known = sorted({*ENGINES, *entry_points(group="edge_sdk.engines").names})
    if not engines:
        yield Problem("engines", f"empty; name at least one of: {', '.join(known)}")
    for index, engine in enumerate(engines):
        if engine.name not in known:
            message = f"unknown engine {engine.name!r}{suggest(engine.name, known)}"
            yield Problem(f"engines[{index}].name", f"{message}; known: {', '.join(known)}")


def _present(value: Any) -> Any:
    """Without absent values (TOML has no null) and empty tables."""
    if isinstance(value, dict):
        items = ((key, _present(item)) for key, item in value.items())
        return {key: item for key, item in items if item not in (None, {})}
    if isinstance(value, list | tuple):
        return [_present(item) for item in value]
    return value
