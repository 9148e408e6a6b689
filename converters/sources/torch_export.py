"""PyTorch programs (``torch.export.save``) as sources, through the toolchain ``hugging-face``."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from converters.hugging_face.export import GRAPH, export, versions
from converters.source import Source, digest_files, quiet
from converters.sources.onnx import OnnxSource, source_of
from edge_sdk.bundle.record import State
from edge_sdk.errors import SourceError


class TorchExportSource:
    """Reads ``.pt2`` files; ``tokenizer.json``, ``labels.json`` beside them come along.

    Inputs have the names of the program's arguments, outputs the keys of a dictionary that it
    returns, else ``output``, or ``output_0``, ``output_1`` … Sizes that were exported as
    dynamic stay dynamic.
    """

    def accepts(self, path: Path) -> bool:
        """Whether the file's name ends in ``.pt2``."""
        return path.is_file() and path.suffix.lower() == ".pt2"

    def read(
        self,
        path: Path,
        *,
        states: tuple[State, ...] | None,
        task: str | None,
        say: Callable[[str], None] = quiet,
    ) -> Source:
        """Exports the program, or finds its export, and reads that.

        Raises:
            SourceError: It is no program that this version of PyTorch reads.
            ToolchainError: The toolchain cannot be built, or the export failed.
        """
        if not zipfile.is_zipfile(path):
            raise SourceError(
                "not a program of torch.export",
                where=str(path),
                remedy="save it with torch.export.save(program, path)",
            )
        digest = digest_files([path])
        request = {"program": str(path.absolute())}
        graph = export("export_program", request, digest, say, where=str(path)) / GRAPH
        read = OnnxSource().read(graph, states=states, task=task)
        source = source_of(
            read.model,
            graph,
            path,
            digest=digest,
            size_bytes=read.size_bytes,
            states=states,
            task=task,
        )
        return replace(source, tools=versions())
