"""Sound to a model input, as a waveform or spectrogram step says: mono, resampled, cut, scaled."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edge_sdk.errors import DataError
from edge_sdk.runtime.inputs import Array
from edge_sdk.runtime.media.wav import read_wav
from edge_sdk.runtime.steps import Waveform

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

REMEDY = "give float samples from -1 to 1, or integers, [samples] or [samples, channels]"
RATES = range(1_000, 768_001)
MOST_CHANNELS = 16  # more of them are samples, and the axes swapped
ZEROS = 10  # of the resampling filter's sinc on each side, at the lower rate
KAISER = 5.0  # its window's beta


def clips(given: Any, rate: int, own_rate: int | None = None) -> list[Float32]:
    """One or several clips as mono samples of one rate.

    Args:
        given: A path, samples (``[samples]`` or ``[samples, channels]``), or a sequence of these.
        rate: Samples per second that the model takes.
        own_rate: Samples per second of arrays; ``rate`` by default. Files say theirs.

    Raises:
        DataError: A file cannot be read, or an array is no sound.
    """
    one = isinstance(given, (str, Path)) or (isinstance(given, np.ndarray) and given.ndim < 3)
    if one:
        return [_clip(given, rate, own_rate, "audio")]
    if not isinstance(given, (Sequence, np.ndarray)):
        raise DataError(
            f"expected sound, given {type(given).__name__}", where="audio", remedy=REMEDY
        )
    return [_clip(value, rate, own_rate, f"audio {i}") for i, value in enumerate(given)]


def _clip(given: Any, rate: int, own_rate: int | None, where: str) -> Float32:
    if isinstance(given, (str, Path)):
        where = str(given)
        samples, of_file = read_wav(Path(given))
        if own_rate not in (None, of_file):
            raise DataError(
                f"has {of_file} samples per second, not {own_rate}",
                where=where,
                remedy="leave the rate out: files say theirs, and are resampled",
            )
        own_rate = of_file
    else:
        samples, own_rate = np.asarray(given), own_rate or rate
    if own_rate not in RATES:
        raise DataError(
            f"{own_rate} samples per second is no rate of sound",
            where=f"{where}: rate",
            remedy=f"give one from {RATES.start} to {RATES.stop - 1}",
        )
    return resample(mono(samples, where), own_rate, rate)


def mono(samples: Array, where: str) -> Float32:
    """The mean of the channels, from -1 to 1.

    Args:
        samples: ``[samples]`` or ``[samples, channels]``; integers span their type's range.
        where: What they are, for errors.

    Raises:
        DataError: Another shape or dtype, or no samples.
    """
    swapped = samples.ndim == 2 and samples.shape[0] < samples.shape[1] > MOST_CHANNELS
    if samples.ndim not in (1, 2) or swapped:
        remedy = "swap its axes: audio.T" if swapped else REMEDY
        raise DataError(f"{list(samples.shape)} is no sound's shape", where=where, remedy=remedy)
    if samples.size == 0:
        raise DataError("has no samples", where=where, remedy="leave empty recordings out")
    if samples.dtype.kind not in "iuf":
        raise DataError(f"{samples.dtype} is no sound", where=where, remedy=REMEDY)
    values = samples.astype(np.float32)
    if samples.dtype.kind in "iu":
        span = 2.0 ** (8 * samples.dtype.itemsize - 1)
        middle = span if samples.dtype.kind == "u" else 0.0
        values = (values - np.float32(middle)) / np.float32(span)
    return values if values.ndim == 1 else values.mean(axis=1, dtype=np.float32)


def resample(samples: Float32, before: int, after: int) -> Float32:
    """Sound at another rate: polyphase filtering with a Kaiser-windowed sinc.

    The filter is that of ``scipy.signal.resample_poly``.

    Args:
        samples: ``[samples]``.
        before: Samples per second.
        after: Samples per second wanted.
    """
    if before == after:
        return samples
    common = gcd(before, after)
    up, down = after // common, before // common
    taps = _low_pass(up, down)
    half = len(taps) // 2
    count = -(-len(samples) * up // down)
    # Output m is the sum over k of taps[half + m * down - k * up] * samples[k].
    reach = half // up + 1
    padded = np.pad(samples.astype(np.float64), reach)
    windows = sliding_window_view(padded, 2 * reach + 1)
    result = np.empty(count, np.float32)
    for phase in range(min(up, count)):  # outputs at one distance from their nearest sample
        nearest, offset = divmod(phase * down, up)
        places = half + offset - up * np.arange(-reach, reach + 1)
        inside = (places >= 0) & (places < len(taps))
        weights = np.where(inside, taps[np.clip(places, 0, len(taps) - 1)], 0.0)
        outputs = len(range(phase, count, up))
        result[phase::up] = windows[nearest::down][:outputs] @ weights
    return result


def _low_pass(up: int, down: int) -> Float64:
    """A linear-phase low pass at the lower of both rates' limits, of gain ``up``."""
    widest = max(up, down)
    half = ZEROS * widest
    taps = np.sinc(np.arange(-half, half + 1) / widest) * np.kaiser(2 * half + 1, KAISER)
    return np.asarray(taps / taps.sum() * up)


def fit_length(samples: Float32, length: int | None) -> Float32:
    """Cut, or filled up with zeros, to ``length`` samples."""
    if length is None:
        return samples
    return np.pad(samples[:length], (0, max(length - len(samples), 0)))


def prepare_waveform(samples: Float32, step: Waveform) -> dict[str, Array]:
    """The model's inputs for one clip, batch axis included: samples, and their mask if any.

    Args:
        samples: ``[samples]`` at the step's rate.
        step: What to do.
    """
    used = samples[: step.samples]
    if step.normalize:
        used = (used - used.mean()) / np.sqrt(used.var() + 1e-7)
    inputs: dict[str, Array] = {step.input: fit_length(used, step.samples)[None]}
    if step.mask:
        inputs[step.mask] = fit_length(np.ones_like(used), step.samples)[None]
    return inputs
