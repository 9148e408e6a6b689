"""Models in ONNX's text syntax (``.onnxtxt``), as its specification and its tests write them."""

from __future__ import annotations

import atexit
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import onnx
import onnx.parser

from converters.source import Source, digest_files, quiet
from converters.sources.onnx import OnnxSource
from edge_sdk.bundle.record import State
from edge_sdk.errors import SourceError


class OnnxTextSource:
    """Reads ``.onnxtxt`` files."""

    def accepts(self, path: Path) -> bool:
        """Whether the file's name ends in ``.onnxtxt``."""
        return path.is_file() and path.suffix == ".onnxtxt"

    def read(
        self,
        path: Path,
        *,
        states: tuple[State, ...] | None,
        task: str | None,
        say: Callable[[str], None] = quiet,
    ) -> Source:
        """Parses the text; the rest is what any ONNX file needs.

        Raises:
            SourceError: A syntax error, or a graph that the ONNX checker refuses.
        """
        try:
            model = onnx.parser.parse_model(path.read_text(encoding="utf-8"))
        except (onnx.parser.ParseError, UnicodeDecodeError) as error:
            raise SourceError(f"not ONNX text: {error}", where=str(path)) from None
        # Engines open the source by its path, too, to compare with: it needs a binary file
        # for as long as the conversion lasts.
        folder = Path(mkdtemp(prefix="edge-sdk-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        binary = folder / f"{path.stem}.onnx"
        onnx.save(model, binary)
        source = OnnxSource().read(binary, states=states, task=task)
        return replace(source, name=path.stem, digest=digest_files([path]))
