"""Writes what transformers, Pillow and scipy make of small pictures and sounds.

Needs transformers==4.57.6, torch, pillow<13 (13 orders its passes otherwise) and scipy:
``python -m tests.runtime.reference.make_media``. Configurations are written beside the
arrays, so that the tests read them as a converter would.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent


def square(side: int) -> dict[str, int]:
    """A size in the words of the configurations."""
    return {"height": side, "width": side}


def shorter(side: int) -> dict[str, int]:
    """A size that keeps proportions."""
    return {"shortest_edge": side}


PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", {"size": {"height": 16, "width": 20}, "resample": 2}),
    "vit-old": ("ViT", {"size": 12, "resample": 3}),
    "deit": ("DeiT", {"size": square(20), "crop_size": 14}),
    "beit": ("Beit", {"size": {"height": 9, "width": 17}, "crop_size": 15, "do_center_crop": True}),
    "convnext": ("ConvNext", {"size": shorter(14), "crop_pct": 0.875, "resample": 3}),
    "mobilenet": ("MobileNetV2", {"size": shorter(18), "crop_size": {"height": 14, "width": 16}}),
    "mobilevit": ("MobileViT", {"size": shorter(16), "crop_size": square(14)}),
    "efficientnet": ("EfficientNet", {"size": square(13), "resample": 0}),
    "efficientnet-offset": (
        "EfficientNet",
        {
            "size": square(13),
            "resample": 1,
            "rescale_factor": 1 / 127.5,
            "rescale_offset": True,
            "include_top": False,
        },
    ),
    "poolformer": (
        "PoolFormer",
        {"size": shorter(14), "crop_pct": 0.9, "crop_size": square(14)},
    ),
    "poolformer-square": ("PoolFormer", {"size": square(12), "crop_size": square(12)}),
    "levit": ("Levit", {"size": shorter(14), "crop_size": square(14)}),
    "clip": ("CLIP", {"size": shorter(15), "crop_size": square(13)}),
    "siglip": ("Siglip", {"size": square(14)}),
    "bit": ("Bit", {"size": shorter(16), "crop_size": square(14)}),
    "no-resize": ("ViT", {"do_resize": False, "do_normalize": False}),
    "raw": (
        "ViT",
        {"size": square(8), "do_rescale": False, "do_normalize": False, "resample": 5},
    ),
}
SOUNDS: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2", {"do_normalize": True}),
    "wav2vec2-plain": ("Wav2Vec2", {"do_normalize": False}),
    "whisper": ("Whisper", {"chunk_length": 1}),
    "whisper-large": ("Whisper", {"chunk_length": 1, "feature_size": 128}),
    "ast": ("AST", {"num_mel_bins": 64, "max_length": 60}),
    "ast-cut": ("AST", {"num_mel_bins": 64, "max_length": 20, "do_normalize": False}),
}
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
SIZES = ((7, 50), (61, 13), (25, 31), (90, 80))
RATES = ((44_100, 16_000), (8_000, 16_000), (48_000, 16_000), (16_000, 22_050))


def picture(height: int = 33, width: int = 45) -> np.ndarray:
    """Edges, gradients and noise."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    planes = [rows * 255 // height, columns * 255 // width, (rows // 4 + columns // 4) % 2 * 255]
    noise = random.integers(-40, 41, (height, width, 3))
    return np.clip(np.stack(planes, axis=-1) + noise, 0, 255).astype(np.uint8)


def sound(rate: int = 16_000, seconds: float = 0.5) -> np.ndarray:
    """A rising tone, a hum and noise."""
    times = np.arange(int(rate * seconds)) / rate
    tones = 0.5 * np.sin(2 * np.pi * (200 + 2000 * times) * times) + 0.1 * np.sin(700 * times)
    noise = np.random.default_rng(1).standard_normal(len(times))
    return (tones + 0.01 * noise).astype(np.float32)


def main() -> None:
    """Writes ``pictures.npz`` and ``sounds.npz``."""
    import transformers
    from PIL import Image
    from scipy.signal import resample_poly

    expected: dict[str, np.ndarray] = {}
    for name, (kind, options) in PICTURES.items():
        processor = getattr(transformers, f"{kind}ImageProcessor")(**options)
        expected[f"{name}.values"] = processor(picture(), return_tensors="np")["pixel_values"]
        expected[f"{name}.config"] = np.array(json.dumps(processor.to_dict()))
    for number, name in enumerate(FILTERS):
        for height, width in SIZES:
            resized = Image.fromarray(picture()).resize((width, height), number)
            expected[f"resize.{name}.{height}x{width}"] = np.asarray(resized)
    expected["grey"] = np.asarray(Image.fromarray(picture()).convert("L"))
    np.savez_compressed(HERE / "pictures.npz", **expected)

    expected = {}
    for name, (kind, options) in SOUNDS.items():
        extractor = getattr(transformers, f"{kind}FeatureExtractor")(**options)
        found = extractor(sound(), sampling_rate=16_000, return_tensors="np")
        expected[f"{name}.values"] = next(iter(found.values()))
        config = {key: value for key, value in extractor.to_dict().items() if key != "mel_filters"}
        expected[f"{name}.config"] = np.array(json.dumps(config, default=str))
    for before, after in RATES:
        common = np.gcd(before, after)
        given = sound(before, 0.1).astype(np.float64)
        expected[f"resample.{before}.{after}"] = resample_poly(
            given, after // common, before // common
        ).astype(np.float32)
    np.savez_compressed(HERE / "sounds.npz", **expected)


if __name__ == "__main__":
    main()
