"""Weights as files store them, under canonical names: the same for every file format."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from converters.decoder.families import Part
from converters.decoder.weights import WeightFormat
from converters.quantize import Blocks
from edge_sdk.errors import SourceError

PORTION_ELEMENTS = 2**20


@dataclass(frozen=True)
class Stored:
    """Where a tensor is: its file, the name of its element type there, and its shape."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


class Store(Protocol):
    """The tensors of a model's files, under the names they have there."""

    @property
    def tensors(self) -> Mapping[str, Stored]:
        """Name -> where it is."""

    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor in float32.

        Raises:
            SourceError: Its element type is not supported, or its file was cut off since.
        """

    def blocks(self, name: str, wanted: WeightFormat) -> Blocks | None:
        """A matrix in the blocks it is stored in, where those are exactly as wanted."""


def portions(shape: tuple[int, ...]) -> Iterator[slice]:
    """Cuts a tensor's rows into portions of a few megabytes; a vector is one portion."""
    rows = shape[0]
    step = rows if len(shape) < 2 else max(1, PORTION_ELEMENTS * rows // math.prod(shape))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def element_types(store: Store) -> str:
    """What the tensors are stored as, the largest share first: ``224 Q4_0, 65 F32``."""
    counts = Counter(stored.dtype for stored in store.tensors.values())
    return ", ".join(f"{count} {dtype}" for dtype, count in counts.most_common())


class StoredWeights:
    """A store's tensors as :class:`converters.decoder.weights.Weights`.

    Args:
        store: The files' tensors.
        parts: Canonical name -> where it lies; more than the architecture has may be named.
        shapes: Canonical name -> shape, of every weight the architecture has.
        ignored: Whether a tensor may be there although nothing reads it.
        where: File or folder, for messages.

    Raises:
        SourceError: A tensor is missing, or one is there that the architecture does not know.
    """

    def __init__(
        self,
        store: Store,
        parts: Mapping[str, Part],
        shapes: Mapping[str, tuple[int, ...]],
        *,
        ignored: Callable[[str], bool] = lambda tensor: False,
        where: Path,
    ) -> None:
        self._store, self._shapes = store, shapes
        self._parts = {name: parts[name] for name in shapes}
        missing = {part.tensor for part in self._parts.values()} - store.tensors.keys()
        known = {part.tensor for part in parts.values()}
        unknown = {name for name in store.tensors.keys() - known if not ignored(name)}
        if missing or unknown:
            names = sorted(missing or unknown)
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise SourceError(
                f"{'lacks' if missing else 'has, and no rule for,'} the tensor "
                f"{', '.join(names[:3])}{more}",
                where=str(where),
                remedy="give a complete model of this family, adapters merged",
            )
        for name, part in self._parts.items():
            _check_shape(name, part, store.tensors[part.tensor], shapes[name])

    def names(self) -> frozenset[str]:
        """Canonical names that are there."""
        return frozenset(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a weight, without reading it."""
        return self._shapes[name]

    def read(self, name: str) -> NDArray[np.float32]:
        """One weight in float32.

        Raises:
            SourceError: Its element type is not supported, or its file was cut off since.
        """
        part = self._parts[name]
        value = self._store.read(part.tensor)
        return value if part.rows is None else value[part.rows]

    def blocks(self, name: str, wanted: WeightFormat) -> Blocks | None:
        """The weight in the blocks it is stored in, where those are exactly as wanted."""
        part = self._parts[name]
        found = self._store.blocks(part.tensor, wanted)
        if found is None or part.rows is None:
            return found
        return Blocks(found.values[part.rows], found.scale[part.rows], None)


def _check_shape(name: str, part: Part, stored: Stored, wanted: tuple[int, ...]) -> None:
    """Compares shapes before anything is read."""
    rows = np.broadcast_to(np.uint8(0), stored.shape[:1])
    try:
        fits = (*rows[... if part.rows is None else part.rows].shape, *stored.shape[1:]) == wanted
    except IndexError:
        fits = False
    if not fits:
        raise SourceError(
            f"tensor {part.tensor!r} of shape {list(stored.shape)} does not give "
            f"{name} of shape {list(wanted)}",
            where=str(stored.file),
            remedy="the configuration and the weights are of different models",
        )
