"""Low-rank adapters: the arrays that a graph with adapter inputs takes, mapped from their files.

A node that an adapter leaves alone is computed as the base model's: its rank is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import Adapter, ArrayRef, TensorSpec
from edge_sdk.errors import BundleError
from edge_sdk.runtime.arrays import read_array

if TYPE_CHECKING:
    from edge_sdk.runtime.engine import Array

PREFIX = "lora."
GRAPH_SUFFIX = "-lora"
"""Name of a graph that takes adapters, behind the name of the one that does not."""


def read_adapter(
    adapter: Adapter, inputs: Sequence[TensorSpec], blobs: BlobStore
) -> dict[str, Array]:
    """What a graph's adapter inputs take.

    Args:
        adapter: An adapter of the variant.
        inputs: All inputs of the graph.
        blobs: Where its arrays are.

    Raises:
        BundleError: It does not fit the graph, or a blob is missing.
    """
    where = f"adapter {adapter.name!r}"
    specs = {spec.name: spec for spec in inputs if spec.name.startswith(PREFIX)}
    odd = adapter.arrays.keys() - specs.keys()
    if odd:
        raise BundleError(f"{min(odd)} is no input of the graph", where=where)
    arrays: dict[str, Array] = {}
    for node in sorted({node_of(name) for name in specs}):
        a, b = specs[f"{PREFIX}{node}.a"], specs[f"{PREFIX}{node}.b"]
        refs = [adapter.arrays.get(side.name) for side in (a, b)]
        if refs == [None, None]:
            arrays[a.name] = np.zeros((_width(a, 0), 0), a.dtype)
            arrays[b.name] = np.zeros((0, _width(b, 1)), b.dtype)
            continue
        for side, ref in zip((a, b), refs, strict=True):
            arrays[side.name] = _fitting(side, ref, blobs, where)
        if arrays[a.name].shape[1] != arrays[b.name].shape[0]:
            raise BundleError(f"{a.name} and {b.name} are not of one rank", where=where)
    return arrays


def node_of(name: str) -> str:
    """The node that an adapter's input ``lora.{node}.a`` or ``.b`` belongs to."""
    return name.removeprefix(PREFIX).rpartition(".")[0]


def _fitting(spec: TensorSpec, ref: ArrayRef | None, blobs: BlobStore, where: str) -> Array:
    """An array that its input can take."""
    axis = 0 if spec.name.endswith(".a") else 1
    found = "none" if ref is None else f"{ref.dtype} {list(ref.shape)}"
    fits = ref is not None and len(ref.shape) == 2 and ref.shape[axis] == _width(spec, axis)
    if ref is None or not fits or ref.dtype != spec.dtype:
        wanted = ", ".join(str(size) for size in spec.shape or ())
        raise BundleError(
            f"{spec.name} is {found} and does not fit the graph: {spec.dtype} [{wanted}]",
            where=where,
        )
    return read_array(ref, blobs)


def _width(spec: TensorSpec, axis: int) -> int:
    """Size of the axis that is not the rank."""
    return int((spec.shape or (0, 0))[axis])
