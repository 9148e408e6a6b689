"""Low-rank adapters: the arrays that a graph with adapter inputs takes, mapped from their files.

A node that an adapter leaves alone is computed as the base model's: its rank is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import Adapter, TensorSpec
from edge_sdk.errors import BundleError
from edge_sdk.runtime.arrays import read_arrays

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
    arrays: dict[str, Array] = {name: _none(spec) for name, spec in specs.items()}
    arrays |= read_arrays(adapter.arrays, blobs)
    for name, spec in specs.items():
        _check(arrays[name], spec, where)
    for node in {node_of(name) for name in specs}:
        a, b = f"{PREFIX}{node}.a", f"{PREFIX}{node}.b"
        if arrays[a].shape[1] != arrays[b].shape[0]:
            raise BundleError(f"{a} and {b} are not of one rank", where=where)
    return arrays


def node_of(name: str) -> str:
    """The node that an adapter's input ``lora.{node}.a`` or ``.b`` belongs to."""
    return name.removeprefix(PREFIX).rpartition(".")[0]


def _none(spec: TensorSpec) -> Array:
    """What an input takes where nothing is added: rank 0."""
    return np.zeros([size if isinstance(size, int) else 0 for size in spec.shape or ()], spec.dtype)


def _check(array: Array, spec: TensorSpec, where: str) -> None:
    """Refuses an array that its input cannot take."""
    wanted = spec.shape or ()
    fits = array.ndim == len(wanted) and all(
        found == size or isinstance(size, str)
        for found, size in zip(array.shape, wanted, strict=True)
    )
    if array.dtype != spec.dtype or not fits:
        named = ", ".join(str(size) for size in wanted)
        raise BundleError(
            f"{spec.name} is {array.dtype} {list(array.shape)} and does not fit the graph: "
            f"{spec.dtype} [{named}]",
            where=where,
        )
