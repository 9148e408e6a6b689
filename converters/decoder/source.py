"""A decoder as a source model, whatever files it came from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from converters.decoder.architecture import Architecture
from converters.decoder.weights import Weights
from edge_sdk.bundle.record import Generation
from edge_sdk.errors import InputError

# Rotary tables hold every position; a million of them would outweigh a small model.
DEFAULT_CONTEXT = 32768


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


def limited(source: DecoderSource, context: int | None) -> DecoderSource:
    """The source with positions for fewer tokens; frequencies stay those of the whole context.

    Args:
        source: The model.
        context: Tokens to keep positions for; all, but at most 32,768, when ``None``.

    Raises:
        InputError: The model's context is shorter than that.
    """
    longest = source.architecture.context
    if context is None and longest <= DEFAULT_CONTEXT:
        return source
    if context is not None and context > longest:
        raise InputError(
            f"{context:,} tokens, the model's context is {longest:,}",
            where="--context",
            remedy=f"give at most {longest}, or leave it out",
        )
    kept = context or DEFAULT_CONTEXT
    cut = f"context limited to {kept:,} of the model's {longest:,} tokens: --context"
    return replace(
        source,
        architecture=replace(source.architecture, context=kept),
        generation=msgspec.structs.replace(source.generation, context=kept),
        notes=source.notes if kept == longest else (*source.notes, cut),
    )
