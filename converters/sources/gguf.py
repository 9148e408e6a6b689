"""GGUF files as sources of decoders: everything is in the file's metadata and tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from converters.decoder import gguf_tokenizer, names
from converters.decoder.gguf_file import MAGIC, GgufFile
from converters.decoder.gguf_model import ROPE_FACTORS, read_model
from converters.decoder.source import DecoderSource
from converters.decoder.stored import StoredWeights, element_types
from converters.source import bundle_name, digest_files, quiet
from edge_sdk.bundle.record import State


class GgufSource:
    """Reads ``.gguf`` files, split ones by any of their parts."""

    def accepts(self, path: Path) -> bool:
        """Whether the file is named or begins as a GGUF file; some stores name files by digest."""
        return path.is_file() and (path.suffix.lower() == ".gguf" or _first_bytes(path) == MAGIC)

    def read(
        self,
        path: Path,
        *,
        states: tuple[State, ...] | None,
        task: str | None,
        say: Callable[[str], None] = quiet,
    ) -> DecoderSource:
        """Reads the metadata; weights stay in the file until they are used."""
        file = GgufFile(path)
        architecture, parts = read_model(file)
        weights = StoredWeights(
            file,
            parts,
            names.shapes(architecture),
            ignored=lambda tensor: tensor == ROPE_FACTORS,
            where=path,
        )
        licence = file.metadata.get("general.license")
        return DecoderSource(
            path=path,
            name=bundle_name(str(file.metadata.get("general.name") or path.stem)),
            digest=digest_files(file.files),
            size_bytes=sum(part.stat().st_size for part in file.files),
            architecture=architecture,
            weights=weights,
            tokenizer=gguf_tokenizer.read_tokenizer(file.metadata, str(path)),
            generation=gguf_tokenizer.read_generation(file.metadata, architecture, str(path)),
            licence=str(licence) if licence else None,
            notes=(f"tensors in the source: {element_types(file)}",),
        )


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC))
    except OSError:
        return b""
