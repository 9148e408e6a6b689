"""What the fixtures read and write; nothing here needs converters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from edge_sdk.runtime.steps import Spectrogram

FOLDER = Path(__file__).parent / "fixtures"
TEXTS = ("three one two", "nine", "four four zero seven two", "eight six one one five three")
NEW_TOKENS = 12
BANDS, FRAMES = 8, 100
SPECTROGRAM = Spectrogram(input="input_features", samples=FRAMES * 160, bands=BANDS)


def features() -> np.ndarray:
    """Two sounds as Whisper's encoder takes them, ``[2, bands, frames]``."""
    return np.random.default_rng(5).normal(size=(2, BANDS, FRAMES)).astype(np.float32)


def written(name: str) -> list[list[int]]:
    """What the source framework's generate() wrote, start tokens included."""
    found: list[list[int]] = json.loads((FOLDER / "written.json").read_text())[name]
    return found
