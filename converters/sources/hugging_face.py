"""Hugging Face folders as sources of decoders: ``config.json``, safetensors and a tokenizer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.decoder import families, names
from converters.decoder.architecture import Architecture
from converters.decoder.checkpoint import INDEX, Checkpoint, read_json
from converters.decoder.families import Part
from converters.decoder.hf_generation import read_generation
from converters.decoder.source import DecoderSource
from converters.decoder.tokenizer_files import FILES, read_tokenizer
from converters.decoder.weights import WeightFormat
from converters.quantize import Blocks
from converters.source import digest_files
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
        weights = FolderWeights(path, architecture, parts, checkpoint)
        side = [path / name for name in ("config.json", "generation_config.json", INDEX, *FILES)]
        settings = _optional(path / "tokenizer_config.json")
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
        )


class FolderWeights:
    """Weights of a checkpoint under canonical names.

    Args:
        folder: The model's folder, for messages.
        architecture: What the configuration says.
        parts: Canonical name -> where it lies, as the model's family has it.
        checkpoint: The folder's tensors.

    Raises:
        SourceError: The checkpoint lacks a tensor, or has one that the family does not know.
    """

    def __init__(
        self,
        folder: Path,
        architecture: Architecture,
        parts: Mapping[str, Part],
        checkpoint: Checkpoint,
    ) -> None:
        self._checkpoint = checkpoint
        self._shapes = names.shapes(architecture)
        self._parts = {name: parts[name] for name in self._shapes}
        used = {part.tensor for part in parts.values()}
        missing = {part.tensor for part in self._parts.values()} - checkpoint.tensors.keys()
        unknown = {n for n in checkpoint.tensors if n not in used and not families.ignored(n)}
        if missing or unknown:
            what = "lacks" if missing else "has tensors that are not supported:"
            raise SourceError(
                f"the checkpoint {what} {', '.join(sorted(missing or unknown)[:3])}"
                f" ({len(missing or unknown)} in all)",
                where=str(folder),
                remedy=f"give a complete {architecture.family} model, without adapters",
            )

    def names(self) -> frozenset[str]:
        """Canonical names that are there."""
        return frozenset(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a weight, without reading it."""
        return self._shapes[name]

    def read(self, name: str) -> NDArray[np.float32]:
        """One weight in float32."""
        part = self._parts[name]
        value = self._checkpoint.read(part.tensor)
        if part.rows is not None:
            value = value[part.rows]
        if value.shape != self._shapes[name]:
            stored = self._checkpoint.tensors[part.tensor]
            raise SourceError(
                f"tensor {part.tensor!r} has shape {list(stored.shape)}; {name} needs "
                f"{list(self._shapes[name])}",
                where=str(stored.file),
                remedy="config.json and the weights are of different models",
            )
        return value

    def blocks(self, name: str, wanted: WeightFormat) -> Blocks | None:
        """``None``: checkpoints are floats."""
        return None


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
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("._+-") or "model"


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
