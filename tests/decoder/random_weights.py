"""Weights of any architecture, drawn from a seed: models to test and play with."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from converters.decoder.architecture import Architecture, Rope
from converters.decoder.names import shapes
from converters.decoder.weights import WeightFormat
from converters.quantize import Blocks


class RandomWeights:
    """Seeded weights, made when they are read; every name has its own stream of numbers.

    ``changed`` names weights that differ from the same seed's: a fine-tune.
    """

    def __init__(
        self, architecture: Architecture, seed: int = 0, changed: frozenset[str] = frozenset()
    ) -> None:
        self._shapes = shapes(architecture)
        self._seed = seed
        self._changed = changed

    def names(self) -> frozenset[str]:
        return frozenset(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def read(self, name: str) -> NDArray[np.float32]:
        shape = self._shapes[name]
        stream = [self._seed + (name in self._changed), zlib.crc32(name.encode())]
        draw = np.random.default_rng(stream).standard_normal(shape, np.float32)
        if name.endswith("norm"):
            return 1 + np.float32(0.1) * draw
        return draw * np.float32(0.02 if name == "embed" or len(shape) == 1 else shape[1] ** -0.5)

    def blocks(self, name: str, wanted: WeightFormat) -> Blocks | None:
        return None


def rope(head_dim: int, theta: float = 10000.0) -> Rope:
    """Unscaled rotary embedding over the whole head."""
    return Rope(tuple(theta ** (-np.arange(0, head_dim, 2) / head_dim)))


def llama(
    *, layers: int = 2, hidden: int = 64, heads: int = 4, kv_heads: int = 2, vocab: int = 128,
    intermediate: int = 160, context: int = 64, tied: bool = True,
) -> Architecture:  # fmt: skip
    """A small Llama."""
    return Architecture(
        family="llama",
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        vocab=vocab,
        context=context,
        norm_eps=1e-5,
        rope=rope(hidden // heads),
        tied=tied,
    )
