"""The KV cache: keys and values of all layers for several rows, in buffers of our own.

A graph reads the past from a row's slice and writes the present into the same
slice, so nothing is ever copied; memory is touched as the tokens come.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import suppress
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
            f"{layer}.{kind}": pages(shape, dtype)
            for layer in range(generation.layers)
            for kind in ("key", "value")
        }

    def slices(self, first: int, count: int) -> Iterator[tuple[str, Array]]:
        """``{layer}.key`` or ``{layer}.value`` and the part of its buffer that holds these rows."""
        for name, buffer in self._buffers.items():
            yield name, buffer[first : first + count]

    def clear(self) -> None:
        """Lets go of the buffers; what is being computed over them keeps them until it is done."""
        self._buffers.clear()

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


def pages(shape: tuple[int, ...], dtype: str) -> Array:
    """Zeros whose memory comes page by page, as it is written.

    ``np.zeros`` asks the kernel for huge pages, and the first token of a row would
    take megabytes in every layer.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, kind).reshape(shape)
