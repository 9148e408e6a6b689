"""TOML files as typed values, with every wrong key explained.

msgspec decides what is valid; this module only says where and what would be right, because
msgspec's own path shows a table's keys as ``[...]`` and stops at the first problem.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from edge_sdk.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

S = TypeVar("S", bound=msgspec.Struct)

loads = tomllib.loads
"""TOML text to dictionaries; raises ``ValueError`` where it is none."""


class Problem(NamedTuple):
    """A key and what is wrong with its value."""

    key: str
    message: str


def read(
    path: Path | None,
    struct: type[S],
    *,
    options: Mapping[str, object] | None = None,
    paths: Sequence[str] = (),
) -> S:
    """Reads a configuration.

    Args:
        path: The file; ``None`` where options say everything.
        struct: What it holds.
        options: Values by the path of their key, as ``broker.url``, in place of the file's;
            ``None`` says nothing.
        paths: Keys of files and folders, which are relative to the folder of the file.

    Raises:
        ConfigError: Names the file, each wrong key, and what is allowed there.
    """
    raw = {} if path is None else _load(path)
    if path is not None:
        for key in paths:
            _resolve(raw, key.split("."), path.absolute().parent)
    for key, value in (options or {}).items():
        if value is not None:
            _set(raw, key.split("."), value)
    problems = list(shape(raw, struct))
    if problems:
        first, *others = problems
        lines = "".join(f"\n  {key}: {message}" for key, message in others)
        where = f"{path}: {first.key}" if path else first.key
        raise ConfigError(f"{first.message}{lines}", where=where)
    return msgspec.convert(raw, struct)


def _load(path: Path) -> dict[str, Any]:
    try:
        return loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise ConfigError(f"not valid TOML: {error}", where=str(path)) from None


def _resolve(raw: Any, key: list[str], folder: Path) -> None:
    *tables, name = key
    for table in tables:
        raw = raw.get(table) if isinstance(raw, dict) else None
    if isinstance(raw, dict) and isinstance(raw.get(name), str):
        raw[name] = str(folder / raw[name])


def _set(raw: dict[str, Any], key: list[str], value: object) -> None:
    *tables, name = key
    for table in tables:
        raw = raw.setdefault(table, {})
        if not isinstance(raw, dict):
            return  # the file is wrong there, which is said next
    raw[name] = value


def suggest(name: str, known: list[str]) -> str:
    """`` (did you mean 'x'?)`` when something known is close to ``name``, else nothing."""
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def shape(value: Any, expected: Any, key: str = "") -> Iterator[Problem]:
    """Unknown and missing keys, wrong types and values out of range."""
    origin, arguments = get_origin(expected), get_args(expected)
    if isinstance(expected, type) and issubclass(expected, msgspec.Struct):
        yield from _table(value, expected, key)
    elif origin is tuple and isinstance(value, list):
        for index, item in enumerate(value):
            yield from shape(item, arguments[0], f"{key}[{index}]")
    elif origin is dict and isinstance(value, dict):
        for name, item in value.items():
            wrong_name = list(shape(name, arguments[0], _join(key, name)))
            yield from wrong_name or shape(item, arguments[1], _join(key, name))
    elif type(None) in arguments:
        yield from shape(value, arguments[0], key)
    elif origin is Literal:
        if value not in arguments:
            allowed = ", ".join(arguments)
            hint = suggest(str(value), list(arguments))
            yield Problem(key, f"{value!r} is not allowed{hint}; allowed: {allowed}")
    else:
        yield from _leaf(value, expected, key)


def _table(value: Any, struct: type[msgspec.Struct], key: str) -> Iterator[Problem]:
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    if not isinstance(value, dict):
        yield Problem(key, f"expected a table with keys {', '.join(fields)}")
        return
    hints = get_type_hints(struct, include_extras=True)
    for name in (name for name in value if name not in fields):
        hint = suggest(name, list(fields))
        yield Problem(_join(key, name), f"unknown key{hint}; allowed: {', '.join(fields)}")
    for name, field in fields.items():
        if name in value:
            yield from shape(value[name], hints[name], _join(key, name))
        elif field.required:
            yield Problem(_join(key, name), f"missing; expected {_describe(hints[name])}")


def _leaf(value: Any, expected: Any, key: str) -> Iterator[Problem]:
    try:
        msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        reason = str(error).partition(" - at `$")[0].replace("`", "")
        yield Problem(key, f"{value!r} is not allowed: {reason[:1].lower()}{reason[1:]}")


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


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
