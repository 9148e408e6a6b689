"""``.tflite`` files as sources: as a graph for every recipe, and as they are for LiteRT."""

from __future__ import annotations

import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from converters import litert_import
from converters.materialize import save
from converters.opaque.source import OpaqueSource
from converters.source import Source, bundle_name, digest_files, quiet
from converters.sources.onnx import source_of
from edge_sdk.bundle.record import State
from edge_sdk.errors import SourceError

IMAGE_RANK = 4
STATEFUL = ("VAR_HANDLE", "ASSIGN_VARIABLE", "READ_VARIABLE", "CALL_ONCE")


class TfliteSource:
    """Reads ``.tflite`` files; class names come from within or from beside the file."""

    def accepts(self, path: Path) -> bool:
        """Whether the file's name ends in ``.tflite``."""
        return path.is_file() and path.suffix.lower() == ".tflite"

    def read(
        self,
        path: Path,
        *,
        states: tuple[State, ...] | None,
        task: str | None,
        say: Callable[[str], None] = quiet,
    ) -> Source | OpaqueSource:
        """Reads the graph; the ONNX file made of it lasts as long as the source.

        A file with an operator that ONNX lacks is a source that only LiteRT can run.
        """
        file = litert_import.read(path)
        try:
            model = litert_import.to_onnx(file)
        except SourceError as error:
            if states:
                raise
            return _opaque(file, task or "generic", error)
        folder = tempfile.mkdtemp(prefix="edge-sdk-")
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
        graph = save(model, Path(folder), "source")
        source = source_of(
            model,
            graph,
            path,
            digest=digest_files([path]),
            size_bytes=path.stat().st_size,
            states=states,
            task=task,
        )
        labels = source.labels or _labels(path, source)
        size = sum(file.stat().st_size for file in graph.parent.iterdir())
        return replace(source, labels=labels, graph_bytes=size, original=path)


def _opaque(file: litert_import.File, task: str, error: SourceError) -> OpaqueSource:
    keeper = next((node.op for node in file.nodes if node.op in STATEFUL), None)
    if keeper:
        raise SourceError(
            f"it keeps state between calls within itself ({keeper}), so that calls of several "
            "users would mix, and nothing could verify a device",
            where=str(file.path),
            remedy="export it with its state as inputs and outputs",
        ) from error
    inputs, outputs = litert_import.signature(file)
    pictures = any(len(spec.shape or ()) == IMAGE_RANK for spec in inputs)
    return OpaqueSource(
        path=file.path,
        name=bundle_name(file.path.stem),
        digest=digest_files([file.path]),
        format="tflite",
        why=error.message,
        kind="vision" if pictures else "generic",
        task=task,
        inputs=inputs,
        outputs=outputs,
    )


def _labels(path: Path, source: Source) -> tuple[str, ...]:
    """Class names from the file's metadata: a list of lines in an archive at its end."""
    shape = source.outputs[0].shape if source.task == "classification" else None
    if not shape or not zipfile.is_zipfile(path):
        return ()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            lines = tuple(archive.read(name).decode("utf-8", "replace").split("\n"))
            names = tuple(line.strip() for line in lines if line.strip())
            if name.endswith(".txt") and len(names) == shape[-1]:
                return names
    return ()
