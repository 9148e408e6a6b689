"""What a decoder is, whatever family it comes from: a typed, complete description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["silu", "gelu_tanh", "gelu"]


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding, reduced to what a cos / sin table needs.

    Scaling variants (linear, dynamic, llama3, yarn, longrope) are resolved into
    ``inverse_frequencies`` and ``attention_factor`` by :mod:`converters.decoder.rope`.

    Attributes:
        inverse_frequencies: One per rotated pair of dimensions; ``len * 2`` dimensions rotate.
        attention_factor: Multiplies cos and sin (yarn, longrope).
        interleaved: Pairs are neighbours (GLM) and not halves (Llama).
    """

    inverse_frequencies: tuple[float, ...]
    attention_factor: float = 1.0
    interleaved: bool = False


@dataclass(frozen=True)
class Architecture:
    """A decoder-only transformer with pre-normalization, RMSNorm and a gated MLP.

    Attributes:
        family: ``model_type`` of the source (``llama``, ``qwen3`` …), for messages.
        layers: Number of decoder layers.
        hidden: Width of the residual stream.
        intermediate: Width of the gated MLP.
        heads: Query heads.
        kv_heads: Key / value heads.
        head_dim: Width of a head.
        vocab: Rows of the embedding table.
        context: Longest context in tokens that the positions are made for.
        norm_eps: Epsilon of every RMSNorm.
        rope: Rotary position embedding.
        activation: Activation of the MLP's gate.
        tied: The head is the embedding table.
        qkv_bias: Query, key and value have biases.
        output_bias: The attention output has a bias.
        mlp_bias: Gate, up and down have biases.
        qk_norm: RMSNorm over each query and key head (Qwen3).
        post_norms: RMSNorm after attention and after the MLP, before the residual add (GLM-4-0414).
        sliding_window: Tokens that attention sees back, itself included, where it is limited.
        unwindowed_layers: Layers that see everything despite ``sliding_window``.
        unrotated_layers: Layers without rotary embedding (SmolLM3).
    """

    family: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    norm_eps: float
    rope: Rope
    activation: Activation = "silu"
    tied: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    sliding_window: int | None = None
    unwindowed_layers: frozenset[int] = frozenset()
    unrotated_layers: frozenset[int] = frozenset()
