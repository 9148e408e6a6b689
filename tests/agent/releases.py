"""Small real bundles: versions of one model that share a large weight.

``y = table[x] + version``: the table is shared, the sum is each version's own. A version may
fail its self-test, or have a small table, so that requests for high rows fail.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_sdk.bundle import record as rec
from edge_sdk.bundle.reader import Bundle, open_bundle
from edge_sdk.shadow.models import DesiredModel
from tests.runtime import onnx_bytes as ob
from tests.runtime.bundles import Builder, spec

ROWS = 100_000
SHARED = ROWS * 4  # bytes


def make(
    path: Path,
    version: str,
    *,
    name: str = "lookup",
    rows: int = ROWS,
    wrong: bool = False,
    profiles: tuple[str, ...] = ("x86-64",),
    shift: float | None = None,
) -> Bundle:
    """A bundle.

    Args:
        path: Where it goes.
        version: Its version; its first number is what is added.
        name: The model's name.
        rows: Rows of the table.
        wrong: Whether its golden output is not what it computes.
        profiles: A variant is made for each.
        shift: What is added, if not the version.
    """
    add = float(version.partition(".")[0]) if shift is None else shift
    with Builder(path) as builder:
        for number, profile in enumerate(profiles):
            x, y = spec("x", ["n"], "int64"), spec("y", ["n"])
            builder._graphs.clear()
            builder.graph(
                [
                    ob.node("Gather", ["table", "x"], ["row"]),
                    ob.node("Add", ["row", "add"], ["y"]),
                ],
                [x],
                [y],
                {
                    "table": np.arange(rows, dtype=np.float32),
                    "add": np.full(1, add + number / 8, np.float32),
                },
            )
            golden = rec.GoldenCase(
                graph="main",
                inputs={"x": builder.array(np.array([3], np.int64))},
                outputs={"y": builder.array(np.float32([3 + add + number / 8 + wrong]))},
                atol=0.01,
                rtol=0.0,
            )
            builder.variant(profile, name=name, version=version, golden=(golden,))
    return open_bundle(path)


def desired(bundle: Bundle, **fields: object) -> DesiredModel:
    """What a deployment of a bundle writes."""
    return DesiredModel(
        ref=f"shelf.test/{bundle.name}:{bundle.version}",
        digest=bundle.descriptor.digest,
        version=bundle.version,
        **fields,
    )
