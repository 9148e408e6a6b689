"""TOML text to :class:`Profile` and back, with every wrong field explained.

msgspec decides what is valid; this module only says where and what would be right, because
msgspec's own path shows a table's keys as ``[...]`` and stops at the first problem.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from device_profiles.isa import FEATURES
from device_profiles.schema import ENGINES, EngineChoice, Kind, Profile
from edge_sdk.errors import ProfileError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class _Problem(NamedTuple):
    key: str
    message: str


def parse(text: str, file: str) -> Profile:
    """Reads a profile from TOML text.

    Args:
        text: The TOML document.
        file: What errors call the document.

    Raises:
        ProfileError: Names the file, each wrong key, and the values allowed there.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"not valid TOML: {error}", where=file) from None
    problems = list(_shape(raw, Profile, ""))
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


def suggest(name: str, known: list[str]) -> str:
    """`` (did you mean 'x'?)`` when something known is close to ``name``, else nothing."""
    close = get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _error(problems: list[_Problem], file: str) -> ProfileError:
    remedy = "`edge-sdk profiles show x86-64` prints a complete, valid profile"
    if len(problems) == 1:
        return ProfileError(problems[0].message, where=f"{file}: {problems[0].key}", remedy=remedy)
    lines = "".join(f"\n  {key}: {message}" for key, message in problems)
    return ProfileError(f"{len(problems)} wrong fields{lines}", where=file, remedy=remedy)


def _shape(value: Any, expected: Any, key: str) -> Iterator[_Problem]:
    """Unknown and missing keys, wrong types and values out of range."""
    origin, arguments = get_origin(expected), get_args(expected)
    if isinstance(expected, type) and issubclass(expected, msgspec.Struct):
        yield from _table(value, expected, key)
    elif origin is tuple and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _shape(item, arguments[0], f"{key}[{index}]")
    elif origin is dict and isinstance(value, dict):
        for name, item in value.items():
            wrong_name = list(_shape(name, arguments[0], _join(key, name)))
            yield from wrong_name or _shape(item, arguments[1], _join(key, name))
    elif type(None) in arguments:
        yield from _shape(value, arguments[0], key)
    elif origin is Literal:
        if value not in arguments:
            allowed = ", ".join(arguments)
            hint = suggest(str(value), list(arguments))
            yield _Problem(key, f"{value!r} is not allowed{hint}; allowed: {allowed}")
    else:
        yield from _leaf(value, expected, key)


def _table(value: Any, struct: type[msgspec.Struct], key: str) -> Iterator[_Problem]:
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    if not isinstance(value, dict):
        yield _Problem(key, f"expected a table with keys {', '.join(fields)}")
        return
    hints = get_type_hints(struct, include_extras=True)
    for name in (name for name in value if name not in fields):
        hint = suggest(name, list(fields))
        yield _Problem(_join(key, name), f"unknown key{hint}; allowed: {', '.join(fields)}")
    for name, field in fields.items():
        if name in value:
            yield from _shape(value[name], hints[name], _join(key, name))
        elif field.required:
            yield _Problem(_join(key, name), f"missing; expected {_describe(hints[name])}")


def _leaf(value: Any, expected: Any, key: str) -> Iterator[_Problem]:
    try:
        msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        reason = str(error).partition(" - at `$")[0].replace("`", "")
        yield _Problem(key, f"{value!r} is not allowed: {reason[:1].lower()}{reason[1:]}")


def _describe(expected: Any) -> str:
    """What a key holds, for a reader who left it out."""
    origin, arguments = get_origin(expected), get_args(expected)
    if origin is Literal:
        return f"one of {', '.join(arguments)}"
    if origin is Annotated:
        return _describe(arguments[0])
    if origin is tuple:
        return f"a list of {_describe(arguments[0])}"
    if origin is dict or issubclass(expected, msgspec.Struct):
        return "a table"
    return {str: "a string", int: "a whole number", float: "a number"}[expected]


def _sense(profile: Profile) -> Iterator[_Problem]:
    """Fields that are each valid but do not fit together."""
    cpu, memory = profile.cpu, profile.memory
    if memory.model_budget_mib > memory.total_mib:
        allowed = f"1 to memory.total_mib ({memory.total_mib})"
        yield _Problem("memory.model_budget_mib", f"{memory.model_budget_mib} is not {allowed}")
    if cpu.threads > cpu.cores:
        yield _Problem("cpu.threads", f"{cpu.threads} is not 1 to cpu.cores ({cpu.cores})")
    if profile.platform.architecture == "arm" and profile.platform.variant is None:
        yield _Problem("platform.variant", "32-bit ARM needs one; allowed: v6, v7, v8")
    features = FEATURES[profile.platform.architecture]
    for index, feature in enumerate(cpu.isa):
        if feature not in features:
            allowed = f"allowed on {profile.platform.architecture}: {', '.join(features)}"
            yield _Problem(f"cpu.isa[{index}]", f"unknown feature {feature!r}; {allowed}")
    yield from _engines(profile.engines)
    for kind in get_args(Kind):
        rules = profile.quantization.get(kind)
        key = f"quantization.{kind}"
        if rules is None:
            yield _Problem(key, "missing; every kind of model needs a table with its rules")
        elif not rules.recipes:
            yield _Problem(f"{key}.recipes", "empty; name at least one, fp32 as the last resort")
        elif repeated := [name for name, n in Counter(rules.recipes).items() if n > 1]:
            yield _Problem(f"{key}.recipes", f"{repeated[0]!r} is there twice")


def _engines(engines: tuple[EngineChoice, ...]) -> Iterator[_Problem]:
    from importlib.metadata import entry_points

    known = sorted({*ENGINES, *entry_points(group="edge_sdk.engines").names})
    if not engines:
        yield _Problem("engines", f"empty; name at least one of: {', '.join(known)}")
    for index, engine in enumerate(engines):
        if engine.name not in known:
            message = f"unknown engine {engine.name!r}{suggest(engine.name, known)}"
            yield _Problem(f"engines[{index}].name", f"{message}; known: {', '.join(known)}")


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _present(value: Any) -> Any:
    """Without absent values (TOML has no null) and empty tables."""
    if isinstance(value, dict):
        items = ((key, _present(item)) for key, item in value.items())
        return {key: item for key, item in items if item not in (None, {})}
    if isinstance(value, list | tuple):
        return [_present(item) for item in value]
    return value
