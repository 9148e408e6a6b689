"""Families of decoders: what ``config.json`` says, and where checkpoints keep their weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.decoder import names
from converters.decoder.architecture import Architecture, Rope
from edge_sdk.errors import SourceError

Config = Mapping[str, Any]

_LAYER = {
    "attention_norm": "input_layernorm.weight",
    "mlp_norm": "post_attention_layernorm.weight",
    **{name: f"self_attn.{name}_proj.weight" for name in "qkvo"},
    **{f"{name}.bias": f"self_attn.{name}_proj.bias" for name in "qkvo"},
    **{name: f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")},
    **{f"{name}.bias": f"mlp.{name}_proj.bias" for name in ("gate", "up", "down")},
}
_IGNORED = re.compile(r".*rotary_emb\.inv_freq$")


@dataclass(frozen=True)
class Part:
    """Where a checkpoint keeps a weight: a tensor, or some of its rows."""

    tensor: str
    rows: slice | NDArray[np.intp] | None = None


def read(config: Config, where: str) -> tuple[Architecture, dict[str, Part]]:
    """The architecture, and canonical name -> where the checkpoint keeps it.

    Args:
        config: Content of ``config.json``.
        where: Its file, for messages.

    Raises:
        SourceError: The model is of a kind that is not supported.
    """
    family = str(config.get("model_type"))
    if family not in _FAMILIES:
        raise SourceError(
            f"model_type {family!r} is not supported",
            where=where,
            remedy=f"supported decoders: {', '.join(sorted(_FAMILIES))}; "
            "export an encoder to ONNX and convert that",
        )
    return _FAMILIES[family](config)


def ignored(tensor: str) -> bool:
    """Whether a checkpoint may hold this tensor although nothing reads it."""
    return _IGNORED.match(tensor) is not None


def _llama(config: Config) -> tuple[Architecture, dict[str, Part]]:
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    theta = config.get("rope_theta", 10000.0)
    model = Architecture(
        family=config["model_type"],
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        heads=config["num_attention_heads"],
        kv_heads=config.get("num_key_value_heads", config["num_attention_heads"]),
        head_dim=head_dim,
        vocab=config["vocab_size"],
        context=config["max_position_embeddings"],
        norm_eps=config["rms_norm_eps"],
        rope=Rope(tuple(theta ** (-2 * i / head_dim) for i in range(head_dim // 2))),
        tied=config.get("tie_word_embeddings", False),
        qkv_bias=config.get("attention_bias", False),
        output_bias=config.get("attention_bias", False),
        mlp_bias=config.get("mlp_bias", False),
    )
    return model, {name: Part(_tensor(name)) for name in names.shapes(model)}


def _tensor(name: str) -> str:
    top = {"embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
    if name in top:
        return f"{top[name]}.weight"
    _, index, rest = name.split(".", 2)
    return f"model.layers.{index}.{_LAYER[rest]}"


_FAMILIES: Mapping[str, Callable[[Config], tuple[Architecture, dict[str, Part]]]] = {
    "llama": _llama,
    "mistral": _llama,
}
