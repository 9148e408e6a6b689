"""Rotary position embeddings: tables of cos and sin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converters.decoder.architecture import Rope


def tables(rope: Rope, context: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cos and sin [context, pairs] of every position, times the attention factor."""
    angles = np.outer(np.arange(context), np.array(rope.inverse_frequencies))
    return np.cos(angles) * rope.attention_factor, np.sin(angles) * rope.attention_factor
