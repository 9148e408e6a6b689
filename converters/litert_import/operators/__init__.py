"""What each operator of LiteRT is in ONNX, by theme."""

from __future__ import annotations

from importlib import import_module

THEMES = ("elementwise", "layers", "movement", "reductions", "recurrent", "selection", "shapes")


def load() -> None:
    """Registers all operators."""
    for theme in THEMES:
        import_module(f"{__name__}.{theme}")
