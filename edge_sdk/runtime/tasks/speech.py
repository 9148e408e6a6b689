"""``transcribe``: each frame's likeliest token (CTC), or text that a decoder writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edge_sdk.errors import BundleError, DataError
from edge_sdk.runtime.inputs import Array
from edge_sdk.runtime.media.sound import Float32, clips
from edge_sdk.runtime.steps import Ctc
from edge_sdk.runtime.tasks.media import clip_feeds, sound_step
from edge_sdk.runtime.tasks.results import Transcription, Word
from edge_sdk.runtime.tasks.variant import Variant

if TYPE_CHECKING:
    from edge_sdk.runtime.generation.completion import Completion

OVERLAP = 6  # a window reads a sixth of its length on each side for context only


def transcribe(variant: Variant, given: Any, rate: int | None) -> Transcription:
    """What is said in a clip; see :meth:`edge_sdk.Model.transcribe`."""
    step = variant.need(Ctc, "transcribe sound")
    sound = sound_step(variant)
    samples = one_clip(given, sound.rate, rate)
    frame = max(1, round(step.seconds * sound.rate))
    window = sound.samples or max(1, round(step.window * sound.rate / frame)) * frame
    margin = window // OVERLAP // frame * frame
    logits = []
    for start, stop in windows(len(samples), window, margin):
        outputs = variant.run(clip_feeds(variant, samples[start:stop]))
        first = margin // frame if start else 0
        last = -(-(stop - start) // frame) - (margin // frame if stop < len(samples) else 0)
        logits.append(_checked(outputs[step.output], step)[0, first:last])
    tokens = np.concatenate(logits).argmax(axis=-1)
    return decode(tokens.tolist(), vocabulary(variant, step), step)


def dictate(
    variant: Variant,
    write: Callable[..., Completion],
    given: Any,
    rate: int | None,
    language: str | None,
    task: str | None,
) -> Transcription:
    """What a decoder writes about a clip, window by window; see :meth:`edge_sdk.Model.transcribe`.

    Args:
        variant: How the model takes sound.
        write: Writes about one window's feeds.
        given: The clip.
        rate: Samples per second of an array.
        language: What is spoken.
        task: ``transcribe`` or ``translate``.
    """
    sound = sound_step(variant)
    samples = one_clip(given, sound.rate, rate)
    texts = []
    for start, stop in windows(len(samples), sound.samples or len(samples), 0):
        with write(clip_feeds(variant, samples[start:stop]), language=language, task=task) as text:
            texts.append(text.read().strip())
    return Transcription(" ".join(filter(None, texts)))


def one_clip(given: Any, rate: int, own_rate: int | None) -> Float32:
    """The one clip that is given; see :func:`edge_sdk.runtime.media.sound.clips`.

    Raises:
        DataError: There are several.
    """
    found = clips(given, rate, own_rate)
    if len(found) != 1:
        raise DataError(
            f"holds {len(found)} clips", where="audio", remedy="transcribe them one by one"
        )
    return found[0]


def windows(length: int, window: int, margin: int) -> Iterator[tuple[int, int]]:
    """Where a clip is cut, start and stop: neighbours share twice the margin.

    Args:
        length: Samples of the clip.
        window: Most samples of a window.
        margin: Samples at a window's end that are there for context only.
    """
    start = 0
    while start + window < length:
        yield start, start + window
        start += window - 2 * margin
    yield start, length


def decode(ids: Sequence[int], tokens: Mapping[int, str], step: Ctc) -> Transcription:
    """Text and timed words of the likeliest tokens.

    Args:
        ids: One token per frame.
        tokens: Id -> token.
        step: What is blank, and what parts words.

    Raises:
        BundleError: A token is not in the vocabulary.
    """
    words: list[Word] = []
    text, begin, end, frame = "", 0, 0, 0
    for token_id, run in groupby(ids):
        count = len(list(run))
        if token_id not in tokens:
            raise BundleError(f"has no token {token_id}", where=step.file)
        token = tokens[token_id]
        if token == step.delimiter:
            if text:
                words.append(Word(text, begin * step.seconds, end * step.seconds))
            text = ""
        elif token != step.blank:
            begin = begin if text else frame
            text += token if step.repeats else token * count
            end = frame + count
        frame += count
    if text:
        words.append(Word(text, begin * step.seconds, end * step.seconds))
    return Transcription(" ".join(word.text for word in words), tuple(words))


def vocabulary(variant: Variant, step: Ctc) -> dict[int, str]:
    """Id -> token, from the step's file.

    Raises:
        BundleError: The file is absent or no vocabulary.
    """
    try:
        found = msgspec.json.decode(variant.read(step.file), type=dict[str, int])
    except msgspec.DecodeError as error:
        raise BundleError(str(error), where=step.file) from error
    return {number: token for token, number in found.items()}


def _checked(logits: Array, step: Ctc) -> Array:
    if logits.ndim != 3:
        raise DataError(
            f"expected logits [batch, frames, tokens], given {logits.shape}",
            where=f"output {step.output!r}",
        )
    return logits
