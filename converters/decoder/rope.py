"""Rotary position embeddings: scaling variants resolved to frequencies.

The variants are those of the Transformers library: linear (position
interpolation, arXiv:2306.15595), dynamic (NTK-aware), yarn (arXiv:2309.00071),
longrope (arXiv:2402.13753) and llama3 (Llama 3.1's).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from converters.decoder.architecture import Rope
from converters.decoder.config import Config

Frequencies = NDArray[np.float64]

TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")


def angles(rope: Rope, context: int) -> NDArray[np.float64]:
    """Angle [context, pairs] by which each pair is rotated at each position."""
    return np.outer(np.arange(context), np.array(rope.inverse_frequencies))


def read(
    config: Config, head_dim: int, *, theta: float, share: float = 1.0, interleaved: bool = False
) -> tuple[Rope, int]:
    """The rotary embedding that a configuration asks for.

    Frequencies that depend on the length of the text are taken as they are within
    the length the model was trained on, and the context is limited to it: cached
    keys cannot be rotated anew.

    Args:
        config: The model's configuration.
        head_dim: Width of a head.
        theta: The family's default base.
        share: Share of the head that is rotated, by the family's default.
        interleaved: The family's pairs are neighbours.

    Returns:
        The embedding, and the context in tokens that it is good for.

    Raises:
        SourceError: A scaling type or one of its fields is not supported.
    """
    scaling = config.part("rope_parameters" if config.has("rope_parameters") else "rope_scaling")
    theta = scaling.number("rope_theta", config.number("rope_theta", theta))
    share = config.number("partial_rotary_factor", share)
    share = scaling.number("partial_rotary_factor", share)
    dims = int(head_dim * share)
    context = config.integer("max_position_embeddings")
    plain = frequencies(theta, dims)
    kind = scaling.choice("rope_type" if scaling.has("rope_type") else "type", TYPES, "default")
    scaled, attention, limit = plain, 1.0, context
    if kind == "linear":
        scaled = plain / scaling.number("factor")
    elif kind == "llama3":
        scaled = _llama3(plain, scaling)
    elif kind == "yarn":
        scaled, attention = _yarn(theta, dims, context, scaling)
    elif kind == "longrope":
        scaled, attention, limit = _longrope(plain, config, scaling)
    return Rope(tuple(scaled.tolist()), attention, interleaved), limit


def frequencies(theta: float, dims: int) -> Frequencies:
    """Unscaled inverse frequencies of ``dims`` rotated dimensions."""
    found: Frequencies = theta ** (-np.arange(0, dims, 2) / dims)
    return found


def _llama3(plain: Frequencies, scaling: Config) -> Frequencies:
    """Long wavelengths divided by the factor, short ones kept, a linear transition between."""
    factor = scaling.number("factor")
    low, high = scaling.number("low_freq_factor"), scaling.number("high_freq_factor")
    turns = scaling.integer("original_max_position_embeddings") * plain / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    blended: Frequencies = (1 - kept) * plain / factor + kept * plain
    return blended


def _yarn(theta: float, dims: int, context: int, scaling: Config) -> tuple[Frequencies, float]:
    factor = scaling.number("factor")
    original = scaling.integer("original_max_position_embeddings", context)
    fast, slow = scaling.number("beta_fast", 32), scaling.number("beta_slow", 1)

    def dimension(turns: float) -> float:
        """The pair that turns this often within the original context."""
        return dims * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = dimension(fast), dimension(slow)
    if scaling.flag("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dims - 1)
    width = last - first or 0.001
    interpolated = np.clip((np.arange(dims // 2) - first) / width, 0, 1)
    plain = frequencies(theta, dims)
    mixed: Frequencies = plain / factor * interpolated + plain * (1 - interpolated)
    return mixed, _yarn_attention(factor, scaling)


def _yarn_attention(factor: float, scaling: Config) -> float:
    if scaling.has("attention_factor"):
        return scaling.number("attention_factor")

    def magnitude(share: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * share * math.log(factor) + 1.0

    if scaling.values.get("mscale") and scaling.values.get("mscale_all_dim"):
        return magnitude(scaling.number("mscale")) / magnitude(scaling.number("mscale_all_dim"))
    return magnitude(1)


def _longrope(
    plain: Frequencies, config: Config, scaling: Config
) -> tuple[Frequencies, float, int]:
    """Short factors, which hold within the original context."""
    context = config.integer("max_position_embeddings")
    original = config.integer("original_max_position_embeddings", context)
    if config.has("original_max_position_embeddings"):
        factor = context / original
    else:
        factor = scaling.number("factor")
    attention = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    short = scaling.numbers("short_factor")
    if len(short) != len(plain):
        raise scaling.wrong("short_factor", f"must have {len(plain)} numbers")
    return plain / np.array(short), scaling.number("attention_factor", attention), original
