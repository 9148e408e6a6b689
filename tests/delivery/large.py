"""A bundle with many layers of random weights, to move over real connections."""

from __future__ import annotations

import random
from collections.abc import Collection
from pathlib import Path

import msgspec

from edge_sdk.bundle.writer import BundleWriter
from tests.bundle.samples import AMD64, make_record


def make_large(
    path: Path,
    layers: int,
    size: int,
    *,
    version: str = "1.0.0",
    tuned: Collection[int] = (),
) -> Path:
    """Writes a bundle of one variant; two with the same layers share what is not ``tuned``.

    Args:
        path: The bundle's directory.
        layers: Number of weight blobs.
        size: Bytes of each.
        version: Of the model.
        tuned: Layers with other weights than usual.
    """
    with BundleWriter(path) as writer:
        record = make_record(writer, "x86-64", version=version)
        weights = tuple(
            writer.blobs.put([random.Random(f"{number} {number in tuned}").randbytes(size)])
            for number in range(layers)
        )
        graph = record.graphs[0]
        graph = msgspec.structs.replace(graph, weights=(*graph.weights, *weights))
        writer.add_variant(msgspec.structs.replace(record, graphs=(graph,)), AMD64)
        return writer.finish()
