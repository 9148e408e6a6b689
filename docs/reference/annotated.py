"""A configuration file with every key, its default and what it means, from the typed struct."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import msgspec


def annotated(struct: type[msgspec.Struct]) -> str:
    """TOML text of a struct's defaults; keys without a default are commented out."""
    return "\n".join(_table(struct, "")) + "\n"


def _table(struct: type[msgspec.Struct], prefix: str) -> Iterator[str]:
    """Lines of a table: its own keys first, as TOML wants it, then the tables in it."""
    meanings, types = _meanings(struct), get_type_hints(struct)
    tables = []
    for field in msgspec.structs.fields(struct):
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        inner = _struct_in(types[field.name])
        if inner:
            tables.append((f"{prefix}{field.name}", inner, default == ()))
        else:
            yield from _comment(meanings[field.name])
            yield _key(field.name, default)
    for name, inner, many in tables:
        yield ""
        yield from _comment(_summary(inner))
        lines = [f"[[{name}]]" if many else f"[{name}]", *_table(inner, f"{name}.")]
        # A list of tables is empty unless given.
        yield from (line if not many or line[:1] in "#" else f"# {line}" for line in lines)


def _key(name: str, default: object) -> str:
    if default in (msgspec.NODEFAULT, None, {}):
        return f"# {name} ="
    # Texts, numbers and lists of them are written alike in JSON and TOML.
    return f"{name} = {json.dumps(msgspec.to_builtins(default))}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 96, initial_indent="# ", subsequent_indent="# ")


def _struct_in(hint: Any) -> type[msgspec.Struct] | None:
    """The struct of a table, or of a list of tables."""
    types = (one for one in (hint, *get_args(hint)) if isinstance(one, type))
    return next((one for one in types if issubclass(one, msgspec.Struct)), None)


def _summary(struct: type[msgspec.Struct]) -> str:
    """The first paragraph of the docstring, without the table's name before it."""
    paragraph = " ".join((inspect.getdoc(struct) or "").partition("\n\n")[0].split())
    text = re.sub(r"^``\[.*?\]``: ", "", paragraph)
    return text[:1].upper() + text[1:]


def _meanings(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Field -> what the docstring's Attributes say."""
    text = inspect.getdoc(struct) or ""
    entries = re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", text, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in entries}
