"""Log-mel energies and MFCC, as transformers' ``audio_utils.spectrogram`` computes them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edge_sdk.errors import DataError
from edge_sdk.runtime.inputs import Array
from edge_sdk.runtime.media.sound import Float32, Float64, fit_length, prepare_waveform
from edge_sdk.runtime.steps import MelScale, Spectrogram, Waveform

BLOCK = 512  # frames transformed at a time; bounds the memory of long clips


def prepare_sound(
    samples: Float32, step: Waveform | Spectrogram, dtypes: Mapping[str, str]
) -> dict[str, Array]:
    """The model's inputs for one clip, whichever step says how.

    Args:
        samples: ``[samples]`` at the step's rate.
        step: What to do.
        dtypes: Model input -> its dtype.

    Raises:
        DataError: The clip is too short for one frame.
    """
    if isinstance(step, Waveform):
        inputs = prepare_waveform(samples, step)
    else:
        inputs = prepare_spectrogram(samples, step)
    return {name: array.astype(dtypes[name], copy=False) for name, array in inputs.items()}


def prepare_spectrogram(samples: Float32, step: Spectrogram) -> dict[str, Array]:
    """The model's inputs for one clip, batch axis included: bands, and their mask if any.

    Args:
        samples: ``[samples]`` at the step's rate.
        step: What to do.

    Raises:
        DataError: The clip is too short for one frame.
    """
    bands = spectrogram(fit_length(samples, step.samples), step)
    used = bands.shape[1]
    if step.frames is not None:
        used = min(used, step.frames)
        bands = np.pad(bands[:, :used], [(0, 0), (0, step.frames - used)])
    bands = ((bands - step.mean) / step.std).astype(np.float32)
    inputs: dict[str, Array] = {step.input: (bands.T if step.frames_first else bands)[None]}
    if step.mask:
        inputs[step.mask] = (np.arange(bands.shape[1]) < used).astype(np.int64)[None]
    return inputs


def spectrogram(samples: Float32, step: Spectrogram) -> Float64:
    """Logarithms of the energy per band and frame, or the cepstrum, ``[bands, frames]``.

    Raises:
        DataError: The clip is too short for one frame.
    """
    width = step.window or step.fft
    least = width // 2 + 1 if step.centered else width
    if len(samples) < least:
        raise DataError(
            f"{len(samples)} samples are too short a clip, one frame takes {least}",
            where="audio",
            remedy="leave such clips out, or fill them up with silence",
        )
    if step.centered:
        samples = np.pad(samples, width // 2, mode="reflect")
    frames = sliding_window_view(samples, width)[:: step.hop]
    if step.drop_last:
        frames = frames[:-1]
    filters = mel_filters(step)
    energies = [
        _energies(frames[start : start + BLOCK], step) @ filters
        for start in range(0, len(frames), BLOCK)
    ]
    bands = _logarithm(np.maximum(np.concatenate(energies), step.floor), step)
    if step.dynamic_range is not None:
        bands = np.maximum(bands, bands.max() - step.dynamic_range)
    if step.coefficients is not None:
        bands = bands @ _cosines(step.bands, step.coefficients)
    return bands.T


def _energies(frames: Float32, step: Spectrogram) -> Float64:
    """Power spectra of some frames, ``[frames, fft // 2 + 1]``."""
    values = frames * np.float64(step.amplitude)
    if step.remove_mean:
        values -= values.mean(axis=1, keepdims=True)
    if step.preemphasis:
        values[:, 1:] -= step.preemphasis * values[:, :-1]
        values[:, 0] *= 1 - step.preemphasis
    values *= _taper(values.shape[1], step)
    return np.square(np.abs(np.fft.rfft(values, step.fft)))


def _taper(width: int, step: Spectrogram) -> Float64:
    points = width + 1 if step.periodic else width
    values = np.hamming(points) if step.taper == "hamming" else np.hanning(points)
    if step.taper == "povey":
        values = values**0.85
    return values[:width]


def _logarithm(energies: Float64, step: Spectrogram) -> Float64:
    if step.log == "log":
        return np.log(energies)
    return np.log10(energies) * (10.0 if step.log == "db" else 1.0)


@cache
def mel_filters(step: Spectrogram) -> Float64:
    """Triangles that gather frequencies in mel bands, ``[fft // 2 + 1, bands]``."""
    high = step.rate / 2 if step.high is None else step.high
    lowest, highest = _to_mel(np.asarray([step.low, high]), step.scale).tolist()
    corners = np.linspace(lowest, highest, step.bands + 2)
    points = np.arange(step.fft // 2 + 1) * step.rate / step.fft
    if step.scale == "kaldi":
        points = _to_mel(points, step.scale)
    else:
        corners = _to_hertz(corners, step.scale)
    distance = corners[None] - points[:, None]
    rising = -distance[:, :-2] / np.diff(corners)[:-1]
    falling = distance[:, 2:] / np.diff(corners)[1:]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    if step.equal_area:
        filters *= 2.0 / (corners[2:] - corners[:-2])
    return np.asarray(filters)


def _to_mel(hertz: Float64, scale: MelScale) -> Float64:
    """O'Shaughnessy's formula (HTK's, and Kaldi's but for the factor), or Slaney's."""
    if scale != "slaney":
        return np.asarray(FACTORS[scale] * np.log1p(hertz / 700.0))
    bent = 15.0 + np.log(np.maximum(hertz, 1000.0) / 1000.0) * SLANEY
    return np.where(hertz < 1000.0, hertz * 3 / 200, bent)


def _to_hertz(mels: Float64, scale: MelScale) -> Float64:
    if scale != "slaney":
        return np.asarray(700.0 * np.expm1(mels / FACTORS[scale]))
    return np.where(mels < 15.0, mels * 200 / 3, 1000.0 * np.exp((mels - 15.0) / SLANEY))


def _cosines(bands: int, coefficients: int) -> Float64:
    """The orthonormal DCT-II, ``[bands, coefficients]``."""
    angles = np.pi / bands * (np.arange(bands)[:, None] + 0.5) * np.arange(coefficients)
    scales = np.full(coefficients, np.sqrt(2 / bands))
    scales[0] = np.sqrt(1 / bands)
    return np.asarray(np.cos(angles) * scales)


FACTORS = {"htk": 2595.0 / np.log(10.0), "kaldi": 1127.0}
SLANEY = 27.0 / np.log(6.4)  # mels per e-fold above 1 kHz
