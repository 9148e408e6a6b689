"""A source's weights as one method rounds them, for the graph builder to take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters import quantize
from converters.decoder.candidates import Method
from converters.decoder.weights import WeightFormat, Weights
from converters.quantize import Blocks


@dataclass(frozen=True)
class Rounded:
    """Weights whose blocks are rounded by a method; blocks the source has itself come first.

    Attributes:
        weights: The source's.
        method: What :meth:`blocks` does. ``gptq`` takes what :meth:`keep` has stored, and
            clips what was not calibrated (the tied table, nodes in other formats).
        folder: Where ``gptq`` keeps its results.
    """

    weights: Weights
    method: Method
    folder: Path

    def names(self) -> frozenset[str]:
        """Canonical names that are there."""
        return self.weights.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a weight."""
        return self.weights.shape(name)

    def read(self, name: str) -> NDArray[np.float32]:
        """One weight in float32."""
        return self.weights.read(name)

    def blocks(self, name: str, wanted: WeightFormat) -> Blocks | None:
        """The weight in blocks, rounded by the method; 8 bits are always rounded to nearest."""
        given = self.weights.blocks(name, wanted)
        if given is not None or self.method in ("nearest", "stored") or wanted.bits == 8:
            return given
        kept = self._kept(name, wanted)
        if self.method == "gptq" and kept.exists():
            with np.load(kept) as arrays:
                zero = None if wanted.symmetric else arrays["zero"]
                return Blocks(arrays["values"], arrays["scale"], zero)
        return quantize.blockwise(
            self.read(name).T,
            4,
            wanted.block_size,
            symmetric=wanted.symmetric,
            clip=True,
        )

    def keep(self, name: str, wanted: WeightFormat, blocks: Blocks) -> None:
        """Stores a calibrated weight."""
        path = self._kept(name, wanted)
        path.parent.mkdir(parents=True, exist_ok=True)
        zero = np.empty(0, np.uint8) if blocks.zero_point is None else blocks.zero_point
        np.savez(path, values=blocks.values, scale=blocks.scale, zero=zero)

    def _kept(self, name: str, wanted: WeightFormat) -> Path:
        kind = "sym" if wanted.symmetric else "asym"
        return self.folder / f"{wanted.bits}-{wanted.block_size}-{kind}" / f"{name}.npz"
