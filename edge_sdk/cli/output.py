"""Printing: one JSON object or aligned tables on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import msgspec


def emit_json(value: msgspec.Struct) -> None:
    """Prints one struct as indented JSON; it must carry a ``schema`` field."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def answer(value: msgspec.Struct, text: str, as_json: bool) -> None:
    """Prints the struct as JSON for a program, or the text for a person."""
    if as_json:
        emit_json(value)
    else:
        print(text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Aligns rows under a header; columns whose cells are all numeric go to the right."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    right = [
        len(lines) > 1
        and all(line[i].lstrip("~")[:1].isdigit() or line[i] in ("", "-") for line in lines[1:])
        for i in range(len(header))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def note(message: str) -> None:
    """Says something to the person watching, on stderr."""
    print(message, file=sys.stderr)


def human_bytes(size: float) -> str:
    """A size in binary units, three significant digits: ``22.9 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.{3 if abs(size) < 999.5 else 4}g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"
