"""Pictures and sound to a variant's feeds, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edge_sdk.runtime.inputs import Array
from edge_sdk.runtime.media import image
from edge_sdk.runtime.media.sound import Float32, clips
from edge_sdk.runtime.media.spectrogram import prepare_sound
from edge_sdk.runtime.steps import Image, Spectrogram, Waveform
from edge_sdk.runtime.tasks.variant import Variant

Feeds = dict[str, Array]


def picture_feeds(variant: Variant, given: Any) -> Iterator[Feeds]:
    """Feeds of each picture; see :func:`edge_sdk.runtime.media.image.pictures`.

    Raises:
        InputError: The variant takes no pictures.
        DataError: One cannot be read, or is none.
    """
    step = variant.need(Image, "take pictures")
    dtype = variant.inputs[step.input].dtype
    for picture in image.pictures(given):
        yield {step.input: image.prepare(picture, step, dtype)}


def sound_feeds(variant: Variant, given: Any, rate: int | None) -> Iterator[Feeds]:
    """Feeds of each clip; see :func:`edge_sdk.runtime.media.sound.clips`.

    Raises:
        InputError: The variant takes no sound.
        DataError: One cannot be read, or is none.
    """
    for samples in clips(given, sound_step(variant).rate, rate):
        yield clip_feeds(variant, samples)


def clip_feeds(variant: Variant, samples: Float32) -> Feeds:
    """Feeds of one clip of samples at the variant's rate."""
    dtypes = {name: spec.dtype for name, spec in variant.inputs.items()}
    return prepare_sound(samples, sound_step(variant), dtypes)


def sound_step(variant: Variant) -> Waveform | Spectrogram:
    """How the variant takes sound.

    Raises:
        InputError: It takes none.
    """
    return variant.find(Spectrogram) or variant.need(Waveform, "take sound")


def is_sound(variant: Variant) -> bool:
    """Whether the variant takes sound."""
    return bool(variant.find(Waveform) or variant.find(Spectrogram))
