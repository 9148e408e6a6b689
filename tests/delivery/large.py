"""A bundle with many layers of random weights, to move over real connections."""

from __future__ import annotations

import random
from collections.abc import Collection
from pathlib import Path

import msgspec

from edge_sdk.bundle.blobs import hex_of
from edge_sdk.bundle.record import NodeCost
from edge_sdk.bundle.writer import BundleWriter
from tests.bundle.samples import AMD64, make_record


def make_large(
    path: Path,
    layers: int,
    size: int,
    *,
    version: str = "1.0.0",
    tuned: Collection[int] = (),
    nodes: int = 0,
) -> Path:
    """Writes a bundle of one variant; two with the same layers share what is not ``tuned``.

    Args:
        path: The bundle's directory.
        layers: Number of weight blobs.
        size: Bytes of each.
        version: Of the model.
        tuned: Layers with other weights than usual.
        nodes: Of each layer in graph and record, so that documents are as large as real ones.
    """
    with BundleWriter(path) as writer:
        record = make_record(writer, "x86-64", version=version)
        weights = tuple(
            writer.blobs.put([random.Random(f"{number} {number in tuned}").randbytes(size)])
            for number in range(layers)
        )
        graph = record.graphs[0]
        graph = msgspec.structs.replace(graph, weights=(*graph.weights, *weights))
        names = [
            f"/model/layers.{layer}/node_{number}"
            for layer in range(layers)
            for number in range(nodes)
        ]
        if nodes:
            text = "".join(
                f"{name} MatMulNBits {hex_of(weights[at // nodes].digest)}\n"
                for at, name in enumerate(names)
            )
            graph = msgspec.structs.replace(graph, parts=(writer.blobs.put([text.encode()]),))
        costs = tuple(
            NodeCost(
                node=name, op="MatMulNBits", flops=size, weight_bytes=size, activation_bytes=960
            )
            for name in names
        )
        record = msgspec.structs.replace(record, graphs=(graph,), costs=costs)
        writer.add_variant(record, AMD64)
        return writer.finish()
