"""Reads folders of pictures or sounds, prepared exactly as the runtime does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from converters.dataset import Array, Feeds
from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import DataError
from edge_sdk.runtime.media import image
from edge_sdk.runtime.media.image_files import read_image
from edge_sdk.runtime.media.sound import clips
from edge_sdk.runtime.media.spectrogram import prepare_sound
from edge_sdk.runtime.steps import Image, Spectrogram, Waveform

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm")
SOUNDS = (".wav",)
Media = Image | Waveform | Spectrogram


def media_files(folder: Path) -> list[Path]:
    """Pictures and sounds in a folder and in the folders in it, in order of their paths."""
    found = [*folder.glob("*"), *folder.glob("*/*")]
    return sorted(file for file in found if file.suffix.lower() in (*PICTURES, *SOUNDS))


def read_media(
    folder: Path, inputs: Sequence[TensorSpec], step: Media | None
) -> Iterator[tuple[list[tuple[Feeds, ...]], list[Array]]]:
    """Reads each file as one sample of one call; a folder in the folder names their class.

    Args:
        folder: ``*.png`` or ``*.wav`` in it, or in one folder per class.
        inputs: The model's inputs.
        step: How the model takes them.

    Yields:
        One sample, and its label where it has one.

    Raises:
        DataError: The model takes none, or a file cannot be read.
    """
    dtypes = {spec.name: spec.dtype for spec in inputs}
    for file in media_files(folder):
        feeds = _prepare(file, step, dtypes)
        labels = [] if file.parent == folder else [np.asarray(file.parent.name)]
        yield [(feeds,)], labels


def _prepare(file: Path, step: Media | None, dtypes: dict[str, str]) -> dict[str, Array]:
    if isinstance(step, Image) and file.suffix.lower() in PICTURES:
        return {step.input: image.prepare(read_image(file), step, dtypes[step.input])}
    if isinstance(step, (Waveform, Spectrogram)) and file.suffix.lower() in SOUNDS:
        [samples] = clips(file, step.rate)
        return prepare_sound(samples, step, dtypes)
    raise DataError(
        "the model does not say how it takes such files",
        where=str(file),
        remedy="put its preprocessor_config.json beside it, or give the data as .npz",
    )
