"""Bundles whose behaviour shows which version answered, and how it fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.runtime import onnx_bytes as ob
from tests.runtime.bundles import Builder, spec


def times(path: Path, factor: int, version: str = "1.0.0", **fields) -> Path:
    """``y = factor * x`` for float32 ``x`` [n]."""
    with Builder(path) as builder:
        builder.graph(
            [ob.node("Mul", ["x", "factor"], ["y"])],
            [spec("x", ["n"])],
            [spec("y", ["n"])],
            {"factor": np.array([factor], np.float32)},
        )
        builder.variant(version=version, **fields)
    return path


def weighty(path: Path, version: str, size: int = 4 * 2**20) -> Path:
    """``y = x @ w`` with that many bytes of weights, which the engine copies to its heap."""
    rows = size // 4 // 1024
    with Builder(path) as builder:
        builder.graph(
            [ob.node("MatMul", ["x", "w"], ["y"])],
            [spec("x", ["n", rows])],
            [spec("y", ["n", 1024])],
            {"w": np.full((rows, 1024), int(version[0]), np.float32)},
        )
        builder.variant(version=version)
    return path


def echo(path: Path, dtype: str) -> Path:
    """``y = x`` of any rank."""
    with Builder(path) as builder:
        builder.graph(
            [ob.node("Identity", ["x"], ["y"])],
            [spec("x", ["a", "b"], dtype)],
            [spec("y", ["a", "b"], dtype)],
        )
        builder.variant()
    return path


def lookup(path: Path, version: str = "1.0.0") -> Path:
    """``y = table[x]`` of 4 rows: an index beyond them makes the engine fail."""
    with Builder(path) as builder:
        builder.graph(
            [ob.node("Gather", ["table", "x"], ["y"])],
            [spec("x", ["n"], "int64")],
            [spec("y", ["n"])],
            {"table": np.arange(4, dtype=np.float32)},
        )
        builder.variant(version=version)
    return path


def logarithm(path: Path) -> Path:
    """``y = log(x)``: NaN below zero."""
    with Builder(path) as builder:
        builder.graph([ob.node("Log", ["x"], ["y"])], [spec("x", ["n"])], [spec("y", ["n"])])
        builder.variant()
    return path
