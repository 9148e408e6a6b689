"""Hugging Face folders as sources: dialogue models as they are, all others through an export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from converters.decoder import families, names
from converters.decoder.checkpoint import INDEX, Checkpoint
from converters.decoder.hf_generation import read_generation
from converters.decoder.source import DecoderSource
from converters.decoder.stored import StoredWeights, element_types
from converters.decoder.tokenizer_files import FILES, read_tokenizer
from converters.hugging_face.folder import ModelFolder
from converters.hugging_face.reader import read_model
from converters.hugging_face.tasks import export_task
from converters.source import AnySource, digest_files, quiet
from edge_sdk.bundle.record import State


class HuggingFaceSource:
    """Reads folders that hold a ``config.json``."""

    def accepts(self, path: Path) -> bool:
        """Whether ``path`` is a folder with a ``config.json`` or weights beside none."""
        return path.is_dir() and (
            (path / "config.json").is_file() or any(path.glob("*.safetensors"))
        )

    def read(
        self,
        path: Path,
        *,
        states: tuple[State, ...] | None,
        task: str | None,
        say: Callable[[str], None] = quiet,
    ) -> AnySource:
        """Reads a dialogue model from its files; exports any other one first."""
        folder = ModelFolder(path)
        found = export_task(folder.config, task, str(path / "config.json"))
        if found is None:
            return _dialogue_model(folder)
        return read_model(folder, found, task, states, say)


def _dialogue_model(folder: ModelFolder) -> DecoderSource:
    """Configuration, tokenizer and the headers of the weights; weights stay in their files."""
    path, config = folder.path, folder.config
    architecture, parts = families.read(config, str(path / "config.json"))
    checkpoint = Checkpoint(path)
    weights = StoredWeights(
        checkpoint, parts, names.shapes(architecture), ignored=families.ignored, where=path
    )
    side = [path / name for name in ("config.json", "generation_config.json", INDEX, *FILES)]
    settings = folder.tokenizer_settings
    tokenizer = read_tokenizer(path, settings)
    return DecoderSource(
        path=path,
        name=folder.name,
        digest=digest_files([*(f for f in side if f.is_file()), *checkpoint.files]),
        size_bytes=sum(file.stat().st_size for file in checkpoint.files),
        architecture=architecture,
        weights=weights,
        tokenizer=tokenizer,
        generation=read_generation(path, architecture, config, settings, tokenizer),
        licence=folder.licence,
        notes=(f"tensors in the source: {element_types(checkpoint)}",),
    )
