"""``--base`` for decoders: tensors that did not change keep the bytes they were given.

Rounding to nearest is stable by itself; GPTQ fits a layer to what the layers before
it hand on, so one changed layer would change all that follow. A variant therefore
carries the digests of its source's matrices, and a later conversion takes over
the blocks of those that are still the same.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters.decoder.architecture import Architecture
from converters.decoder.candidates import spec_from
from converters.decoder.names import nodes, parts
from converters.decoder.weights import WeightFormat, Weights
from converters.quantize import Blocks
from edge_sdk.bundle.reader import Variant

DIGESTS_FILE = "weights.json"


def encoded_digests(weights: Weights) -> bytes:
    """JSON of canonical name -> ``sha256:…`` of every matrix in float32."""
    matrices = sorted(name for name in weights.names() if len(weights.shape(name)) == 2)
    return msgspec.json.encode({name: digest(weights, name) for name in matrices})


def digest(weights: Weights, name: str) -> str:
    """``sha256:…`` of one weight in float32."""
    little = np.ascontiguousarray(weights.read(name), "<f4")
    return f"sha256:{hashlib.sha256(little.data).hexdigest()}"


class BaseWeights:
    """A source's weights, with a base variant's blocks for those that are the same.

    Args:
        weights: The source's.
        architecture: Of the source.
        variant: The base's variant.

    Raises:
        RecipeError: The base's recipe does not fit this source.
    """

    def __init__(self, weights: Weights, architecture: Architecture, variant: Variant) -> None:
        self._weights = weights
        self._digests = _digests(variant)
        self._plan = spec_from(variant.record.recipe, architecture, weights).plan
        self._table = "head" if architecture.tied else "embed"
        main = next(graph for graph in variant.record.graphs if graph.name == "main")
        model = ir.load(variant.blob_path(main.parts[0].digest))
        self._initializers = model.graph.initializers
        self._places = _places(architecture, weights)
        self._same = cache(lambda name: digest(weights, name) == self._digests.get(name))

    def names(self) -> frozenset[str]:
        """Canonical names that are there."""
        return self._weights.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a weight."""
        return self._weights.shape(name)

    def read(self, name: str) -> NDArray[np.float32]:
        """One weight in float32."""
        return self._weights.read(name)

    def blocks(self, name: str, wanted: WeightFormat) -> Blocks | None:
        """The base's blocks where the weight and its format are the same."""
        node, start = self._places[name]
        planned = self._plan.of(self._table if node == "embed" else node)
        if wanted.bits not in (4, 8) or planned != wanted or not self._same(name):
            return self._weights.blocks(name, wanted)
        part = slice(start, start + self._weights.shape(name)[0])
        scale = self._array(f"{node}.scales")[part].astype(np.float32)
        codes = self._array(f"{node}.weight")[part].astype(np.uint8)
        zeros = None if wanted.symmetric else self._array(f"{node}.zero_points")[part]
        return Blocks(
            values=codes.reshape(*scale.shape, -1),
            scale=scale,
            zero_point=None if zeros is None else zeros.astype(np.uint8),
        )

    def _array(self, name: str) -> NDArray[Any]:
        tensor = self._initializers[name].const_value
        assert tensor is not None
        if not isinstance(tensor, ir.ExternalTensor):
            return tensor.numpy()
        # onnx-ir refuses a file that has a second name, and a store links to blobs.
        return np.memmap(
            tensor.path,
            tensor.dtype.numpy(),
            mode="r",
            offset=tensor.offset or 0,
            shape=tuple(tensor.shape.numpy()),
        )


def _digests(variant: Variant) -> dict[str, str]:
    for file in variant.record.files:
        if file.path == DIGESTS_FILE:
            content = variant.blob_path(file.blob.digest).read_bytes()
            return msgspec.json.decode(content, type=dict[str, str])
    return {}  # a base without digests has nothing to keep


def _places(architecture: Architecture, weights: Weights) -> dict[str, tuple[str, int]]:
    """Canonical name -> the node that stacks it, and its first row there."""
    found: dict[str, tuple[str, int]] = {"embed": ("embed", 0)}
    for node in nodes(architecture):
        start = 0
        for name in parts(node):
            if name in weights.names():
                found[name] = node, start
                start += weights.shape(name)[0]
    return found
