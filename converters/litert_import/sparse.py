"""Sparse constants made dense: TensorFlow Lite's form of TACO's formats (Chou et al., 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DENSE = 0  # schema.DimensionType


def densified(stored: Array, sparsity: Any, shape: Sequence[int]) -> Array:
    """A constant with its zeros.

    Args:
        stored: The values that are kept, in the order of traversal.
        sparsity: The schema's ``SparsityParameters``: which values these are.
        shape: The constant's shape.
    """
    rank, blocks = len(shape), [] if sparsity.blockMap is None else list(sparsity.blockMap)
    at = np.zeros(1, np.int64)  # of each value reached so far, in its level's storage
    found: dict[int, Array] = {}  # axis, or block of an axis after those -> coordinate
    sizes: dict[int, int] = {}
    for axis, level in zip(sparsity.traversalOrder, sparsity.dimMetadata, strict=True):
        if level.format == DENSE:
            size = sizes[int(axis)] = int(level.denseSize)
            counts = np.full(len(at), size)
            place = np.tile(np.arange(size), len(at))
            at = np.repeat(at * size, size) + place
        else:
            ends, places = (
                np.asarray(part.values) for part in (level.arraySegments, level.arrayIndices)
            )
            counts = (ends[at + 1] - ends[at]).astype(np.int64)
            first = np.repeat(ends[at].astype(np.int64) - (np.cumsum(counts) - counts), counts)
            at = first + np.arange(counts.sum())
            place = places[at].astype(np.int64)
        found = {known: np.repeat(old, counts) for known, old in found.items()}
        found[int(axis)] = place
    for number, axis in enumerate(blocks):
        found[int(axis)] = found[int(axis)] * sizes[rank + number] + found[rank + number]
    dense = np.zeros(shape, stored.dtype)
    dense[tuple(found[axis] for axis in range(rank))] = stored.reshape(-1)[at]
    return dense
