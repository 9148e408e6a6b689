"""Which of two versions is newer."""

from __future__ import annotations

_Piece = tuple[bool, int, str]


def is_older(version: str, than: str) -> bool:
    """Whether one version comes before another, as Semantic Versioning 2.0.0 orders them.

    Numbers compare as numbers, a pre-release comes before its release, and what follows a
    ``+`` is ignored (section 11). Other names of versions compare in the same way, piece by piece.
    """
    return _precedence(version) < _precedence(than)


def _precedence(version: str) -> tuple[tuple[_Piece, ...], bool, tuple[_Piece, ...]]:
    core, dash, pre = version.partition("+")[0].partition("-")
    return _pieces(core), not dash, _pieces(pre)


def _pieces(text: str) -> tuple[_Piece, ...]:
    """Numbers come before words, as the specification has it."""
    return tuple(
        (False, int(piece), "") if piece.isdecimal() else (True, 0, piece)
        for piece in text.split(".")
    )
