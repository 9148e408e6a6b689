"""The KV cache: keys and values of all layers for several rows, in buffers of our own.

A graph reads the past from a row's slice and writes the present into the same
slice, so nothing is ever copied; memory is touched as the tokens come.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from edge_sdk.bundle.record import Generation

if TYPE_CHECKING:
    from edge_sdk.runtime.engine import Array


class KVCache:
    """Per layer a key and a value buffer ``[rows, kv_heads, capacity, head_dim]``.

    Args:
        generation: The decoder's shape.
        rows: Sequences held at the same time.
        capacity: Tokens per row.
        dtype: Element type the graph wants: ``float32``, ``float16`` or ``int8``.
    """

    def __init__(self, generation: Generation, rows: int, capacity: int, dtype: str) -> None:
        self.rows = rows
        self.capacity = capacity
        shape = (rows, generation.kv_heads, capacity, generation.head_dim)
        self._buffers: dict[str, Array] = {
            f"{layer}.{kind}": np.zeros(shape, dtype)  # zeroed by the kernel page by page, on use
            for layer in range(generation.layers)
            for kind in ("key", "value")
        }

    def slices(self, first: int, count: int) -> Iterator[tuple[str, Array]]:
        """``{layer}.key`` or ``{layer}.value`` and the part of its buffer that holds these rows."""
        for name, buffer in self._buffers.items():
            yield name, buffer[first : first + count]

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copies the first tokens of a row over another row's."""
        for buffer in self._buffers.values():
            buffer[target, :, :tokens] = buffer[source, :, :tokens]

    def swap(self, one: int, other: int, tokens: int) -> None:
        """Exchanges the first tokens of two rows."""
        for buffer in self._buffers.values():
            kept = buffer[one, :, :tokens].copy()
            buffer[one, :, :tokens] = buffer[other, :, :tokens]
            buffer[other, :, :tokens] = kept
