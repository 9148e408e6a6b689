"""Hugging Face folders as sources of decoders: ``config.json``, safetensors and a tokenizer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters.decoder import families, names
from converters.decoder.checkpoint import INDEX, Checkpoint, read_json
from converters.decoder.hf_generation import read_generation
from converters.decoder.source import DecoderSource
from converters.decoder.stored import StoredWeights, element_types
from converters.decoder.tokenizer_files import FILES, read_tokenizer
from converters.source import bundle_name, digest_files
from edge_sdk.bundle.record import State
from edge_sdk.errors import SourceError


class HuggingFaceSource:
    """Reads folders that hold a ``config.json``."""

    def accepts(self, path: Path) -> bool:
        """Whether ``path`` is a folder with a ``config.json`` or weights beside none."""
        return path.is_dir() and (
            (path / "config.json").is_file() or any(path.glob("*.safetensors"))
        )

    def read(
        self, path: Path, *, states: tuple[State, ...] | None, task: str | None
    ) -> DecoderSource:
        """Reads configuration, tokenizer and the headers of the weights; weights stay in files."""
        config = _config(path)
        architecture, parts = families.read(config, str(path / "config.json"))
        checkpoint = Checkpoint(path)
        weights = StoredWeights(
            checkpoint, parts, names.shapes(architecture), ignored=families.ignored, where=path
        )
        side = [path / name for name in ("config.json", "generation_config.json", INDEX, *FILES)]
        settings = _optional(path / "special_tokens_map.json")  # all that old folders have
        settings |= _optional(path / "tokenizer_config.json")
        tokenizer = read_tokenizer(path, settings)
        return DecoderSource(
            path=path,
            name=_name(path),
            digest=digest_files([*(f for f in side if f.is_file()), *checkpoint.files]),
            size_bytes=sum(file.stat().st_size for file in checkpoint.files),
            architecture=architecture,
            weights=weights,
            tokenizer=tokenizer,
            generation=read_generation(path, architecture, config, settings, tokenizer),
            licence=_licence(path, config),
            notes=(f"tensors in the source: {element_types(checkpoint)}",),
        )


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise SourceError(
            "has weights but no config.json",
            where=str(folder),
            remedy="download all files of the model",
        )
    return read_json(file)


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _name(folder: Path) -> str:
    """A bundle's name from the folder's, or from the repository's in a download cache."""
    folder = folder.absolute()
    if folder.parent.name == "snapshots":
        name = folder.parent.parent.name.removeprefix("models--").split("--")[-1]
    else:
        name = folder.name
    return bundle_name(name)


def _licence(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The licence named in the configuration or in the front matter of the model card."""
    if isinstance(config.get("license"), str):
        return str(config["license"])
    card = folder / "README.md"
    if not card.is_file():
        return None
    matter = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.S)
    found = re.search(r"^license:\s*['\"]?([\w.+-]+)", matter[1], re.M) if matter else None
    return found[1] if found else None
