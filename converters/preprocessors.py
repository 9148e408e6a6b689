"""``preprocessor_config.json`` of transformers to the step that does the same on a device.

Where a configuration leaves a field out (old files do), it has the default of that
processor. What no step can express is an error, never an approximation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import SourceError
from edge_sdk.runtime.steps import Filter, Image, Layout, Spectrogram, Waveform

Size = int | list[int] | dict[str, int | None]
Pair = tuple[int, int]
Numbers = float | list[float]

PILLOW: tuple[Filter, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
# Processors that resize, crop, scale and normalize pictures; of these, whose single
# number as size means the shorter side, and who filter by cubics if left to themselves.
PICTURES = {
    "Beit", "Bit", "Blip", "CLIP", "ChineseCLIP", "ConvNext", "DeiT", "EfficientFormer",
    "EfficientNet", "Levit", "MobileNetV1", "MobileNetV2", "MobileViT", "PoolFormer", "Pvt",
    "Segformer", "Siglip", "ViT", "ViTHybrid",
}  # fmt: skip
SHORTER = {
    "Bit", "CLIP", "ConvNext", "Levit", "MobileNetV1", "MobileNetV2", "MobileViT", "PoolFormer",
    "ViTHybrid",
}  # fmt: skip
BICUBIC = {
    "Beit", "Bit", "Blip", "CLIP", "ChineseCLIP", "DeiT", "EfficientFormer", "Levit",
    "PoolFormer", "Siglip", "ViTHybrid",
}  # fmt: skip
CROP_SHARES = {"ConvNext": 224 / 256, "Levit": 224 / 256, "PoolFormer": 0.9}
CONVNEXT_WHOLE = 384  # from this size on, ConvNeXT's processor does not crop


class _Pictures(msgspec.Struct):
    """Fields of image processors; ``null`` says no."""

    do_resize: bool | None = True
    size: Size | None = None
    crop_pct: float | None = None
    resample: int | None = None
    do_center_crop: bool | UnsetType | None = UNSET
    crop_size: Size | None = None
    do_rescale: bool | None = True
    rescale_factor: float | None = 1 / 255
    rescale_offset: bool | None = False
    do_normalize: bool | UnsetType | None = UNSET
    image_mean: Numbers | None = None
    image_std: Numbers | None = None
    include_top: bool | None = True
    do_flip_channel_order: bool | UnsetType | None = UNSET
    do_pad: bool | None = False
    pad_size: Size | None = None


class _Sound(msgspec.Struct):
    """Fields of feature extractors for sound."""

    sampling_rate: int = 16_000
    do_normalize: bool | None = True
    feature_size: int = 80
    n_fft: int = 400
    hop_length: int = 160
    chunk_length: int = 30
    num_mel_bins: int = 128
    max_length: int = 1024
    mean: float = -4.2677393
    std: float = 4.5689974


def read_preprocessor(
    config: dict[str, Any], inputs: Sequence[TensorSpec], where: str
) -> Image | Waveform | Spectrogram:
    """The step that a processor's configuration describes.

    Args:
        config: Content of ``preprocessor_config.json``.
        inputs: The model's inputs.
        where: The file, for errors.

    Raises:
        SourceError: The processor is not known, or does what no step can.
    """
    name = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    kind = re.sub(r"(ImageProcessor(Fast)?|FeatureExtractor)$", "", name)  # its name of old
    try:
        if name in SOUND:
            return SOUND[name](msgspec.convert(config, _Sound), inputs, where)
        if kind in PICTURES:
            return _image(kind, msgspec.convert(config, _Pictures), inputs, where)
    except (msgspec.ValidationError, ValueError) as error:
        raise SourceError(str(error), where=where) from error
    raise SourceError(
        f"{name or 'a processor without a type'} is none of those that are known: "
        f"{', '.join(sorted({*SOUND, *PICTURES}))}",
        where=where,
        remedy="remove the file; the model then takes arrays that are prepared already",
    )


def _image(kind: str, config: _Pictures, inputs: Sequence[TensorSpec], where: str) -> Image:
    resample = config.resample
    if resample is None:
        resample = PILLOW.index("bicubic" if kind in BICUBIC else "bilinear")
    if not 0 <= resample < len(PILLOW):
        raise SourceError(f"{resample} is no filter", where=f"{where}: resample")
    spec, layout = _picture_input(inputs, where)
    size, shorter, crop = _sizes(kind, config, where)
    flips = config.do_flip_channel_order
    mean, std = _statistics(kind, config)
    return Image(
        input=spec.name,
        layout=layout,
        channels="BGR" if (kind == "MobileViT" if flips is UNSET else flips) else "RGB",
        size=size,
        shorter=shorter,
        resample=PILLOW[resample],
        crop=crop,
        scale=(config.rescale_factor or 1 / 255) if config.do_rescale else 1.0,
        offset=-1.0 if config.do_rescale and config.rescale_offset else 0.0,
        mean=mean,
        std=std,
        pad=_pair(config.pad_size, f"{where}: pad_size") if config.do_pad else None,
    )


def _sizes(kind: str, config: _Pictures, where: str) -> tuple[Pair | None, int | None, Pair | None]:
    """What a picture is resized to, exactly or by its shorter side, and cropped to."""
    crops = config.do_center_crop
    if crops is UNSET:
        crops = config.crop_size is not None
    crop = _pair(config.crop_size, f"{where}: crop_size") if crops else None
    if not config.do_resize:
        return None, None, crop
    edge = _edge(kind, config.size)
    if kind == "ConvNext" and edge:
        if edge >= CONVNEXT_WHOLE:
            return (edge, edge), None, None
        crop = (edge, edge)
    share = config.crop_pct or CROP_SHARES[kind] if kind in CROP_SHARES else 1.0
    if edge:
        return None, int(edge / share), crop
    height, width = _pair(config.size, f"{where}: size")
    if kind == "PoolFormer":
        height, width = int(height / share), int(width / share)
    return (height, width), None, crop


def _edge(kind: str, size: Size | None) -> int | None:
    """The size as that of the shorter side, if it is meant so."""
    if isinstance(size, int):
        return size if kind in SHORTER else None
    if not isinstance(size, dict):
        return None
    if kind == "PoolFormer" and size.get("height") == size.get("width"):
        return size.get("height") or size.get("shortest_edge")
    return size.get("shortest_edge")


def _pair(size: Size | None, where: str) -> Pair:
    if isinstance(size, int):
        return size, size
    found = [size.get("height"), size.get("width")] if isinstance(size, dict) else size or []
    numbers = [number for number in found if number]
    if len(numbers) != 2 or (isinstance(size, dict) and len(size) > 2):
        raise SourceError(f"{size} is no height and width", where=where)
    return numbers[0], numbers[1]


def _statistics(kind: str, config: _Pictures) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel."""
    normalizes = config.do_normalize
    if normalizes is UNSET:
        normalizes = config.image_mean is not None
    mean, std = _numbers(config.image_mean), _numbers(config.image_std)
    twice = kind == "EfficientNet" and config.include_top  # it divides once more at its end
    squares = tuple(value * value for value in std) if normalizes else std
    return mean if normalizes else (), (squares if twice else std) if normalizes or twice else ()


def _numbers(given: Numbers | None) -> tuple[float, ...]:
    if isinstance(given, list):
        return tuple(given)
    return () if given is None else (given,) * 3


def _picture_input(inputs: Sequence[TensorSpec], where: str) -> tuple[TensorSpec, Layout]:
    found = [spec for spec in inputs if spec.shape and len(spec.shape) == 4]
    if len(found) != 1:
        raise SourceError(
            f"a picture fills one input of rank 4, the model has {len(found)}", where=where
        )
    shape = found[0].shape or ()
    last = shape[3] in (1, 3) and shape[1] not in (1, 3)
    return found[0], "NHWC" if last else "NCHW"


def _waveform(config: _Sound, inputs: Sequence[TensorSpec], where: str) -> Waveform:
    name, mask, length = _sound_input(inputs, 2, where)
    return Waveform(
        input=name,
        rate=config.sampling_rate,
        normalize=bool(config.do_normalize),
        mask=mask,
        samples=length,
    )


def _whisper(config: _Sound, inputs: Sequence[TensorSpec], where: str) -> Spectrogram:
    name, mask, _ = _sound_input(inputs, 3, where)
    return Spectrogram(
        input=name,
        rate=config.sampling_rate,
        samples=config.chunk_length * config.sampling_rate,
        fft=config.n_fft,
        hop=config.hop_length,
        bands=config.feature_size,
        high=8000.0,
        mask=mask,
    )


def _ast(config: _Sound, inputs: Sequence[TensorSpec], where: str) -> Spectrogram:
    name, mask, _ = _sound_input(inputs, 3, where)
    return Spectrogram(
        input=name,
        rate=config.sampling_rate,
        fft=512,
        window=400,
        periodic=False,
        centered=False,
        drop_last=False,
        remove_mean=True,
        preemphasis=0.97,
        bands=config.num_mel_bins,
        low=20.0,
        scale="kaldi",
        equal_area=False,
        log="log",
        floor=2.0**-23,
        dynamic_range=None,
        frames=config.max_length,
        mean=config.mean if config.do_normalize else 0.0,
        std=config.std * 2 if config.do_normalize else 1.0,
        frames_first=True,
        mask=mask,
    )


def _sound_input(
    inputs: Sequence[TensorSpec], rank: int, where: str
) -> tuple[str, str | None, int | None]:
    """Names of the input that takes sound and of its mask, and its fixed length if any."""
    found = [
        spec
        for spec in inputs
        if spec.shape and len(spec.shape) == rank and spec.dtype.startswith("float")
    ]
    if len(found) != 1:
        raise SourceError(
            f"sound fills one float input of rank {rank}, the model has {len(found)}", where=where
        )
    masks = [spec.name for spec in inputs if "mask" in spec.name.lower()]
    length = (found[0].shape or (0,))[-1]
    return found[0].name, next(iter(masks), None), length if isinstance(length, int) else None


SOUND: dict[str, Callable[[_Sound, Sequence[TensorSpec], str], Waveform | Spectrogram]] = {
    "ASTFeatureExtractor": _ast,
    "Wav2Vec2FeatureExtractor": _waveform,
    "WhisperFeatureExtractor": _whisper,
}
