"""A decoder as a source model, whatever files it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from converters.decoder.architecture import Architecture
from converters.decoder.weights import Weights
from edge_sdk.bundle.record import Generation


@dataclass(frozen=True)
class DecoderSource:
    """A dialogue model before conversion.

    Attributes:
        path: Folder or file it was read from.
        name: Default name of the bundle.
        digest: ``sha256:…`` over all its files.
        size_bytes: Size of its weight files.
        architecture: What it is.
        weights: Its weights, read on demand.
        tokenizer: Content of its ``tokenizer.json`` (given, or built from GGUF metadata).
        generation: Special tokens, chat template and sampling defaults.
        licence: Its licence, where known.
        notes: What the reader had to say.
    """

    path: Path
    name: str
    digest: str
    size_bytes: int
    architecture: Architecture
    weights: Weights
    tokenizer: bytes
    generation: Generation
    licence: str | None = None
    notes: tuple[str, ...] = field(default=())
