"""From an in-memory graph to a session: temporary files and the runtime's own engines.

Converters run candidates exactly as a device would, through
:mod:`edge_sdk.runtime`. Weights go to one external file, so models above the
2 GB protobuf limit take the same way as small ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from edge_sdk.errors import MissingEngineError
from edge_sdk.runtime.engine import Session, SessionOptions, engines

INLINE_BYTES = 1024


def save(model: ir.Model, folder: Path) -> Path:
    """Writes ``model.onnx`` and ``weights.bin`` into ``folder``; returns the graph's path.

    Tensors below 1 KiB stay inside the graph, where shape inference needs them.
    """
    path = folder / "model.onnx"
    ir.save(model, path, external_data="weights.bin", size_threshold_bytes=INLINE_BYTES)
    return path


def open_path(path: Path, options: SessionOptions | None = None, engine: str = "onnx") -> Session:
    """Opens a graph file with the runtime engine of that name.

    Raises:
        MissingEngineError: No such engine is registered, or its library is absent.
        EngineError: The engine refused the graph.
    """
    found = engines().get(engine)
    if found is None:
        raise MissingEngineError(f"no engine named {engine!r}", remedy="install its package")
    return found.open(path, options or SessionOptions())


@contextmanager
def opened(
    model: ir.Model, options: SessionOptions | None = None, engine: str = "onnx"
) -> Iterator[Session]:
    """A session over ``model`` for the duration of a ``with`` block; files are temporary."""
    with tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder:
        yield open_path(save(model, Path(folder)), options, engine)
