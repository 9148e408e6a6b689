"""What a GGUF file's metadata say of the model: its architecture, and where its weights lie.

Metadata become the fields of a ``config.json``, so that a family is described
in one place only (:mod:`converters.decoder.families`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.decoder import families, names
from converters.decoder.architecture import Architecture, Rope
from converters.decoder.config import Config
from converters.decoder.families import Part
from converters.decoder.gguf_file import GgufFile
from edge_sdk.errors import SourceError

# Field of config.json -> key below the architecture's name.
_REQUIRED = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
_OPTIONAL = {
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "rope_theta": "rope.freq_base",
    "sliding_window": "attention.sliding_window",
}
_SCALING = {
    "rope_type": "rope.scaling.type",
    "factor": "rope.scaling.factor",
    "original_max_position_embeddings": "rope.scaling.original_context_length",
    "beta_fast": "rope.scaling.yarn_beta_fast",
    "beta_slow": "rope.scaling.yarn_beta_slow",
}
_TOP = {"embed": "token_embd", "norm": "output_norm", "head": "output"}
_LAYER = {
    "attention_norm": "attn_norm",
    "mlp_norm": "ffn_norm",
    **{name: f"attn_{name}" for name in ("q", "k", "v", "q_norm", "k_norm")},
    "o": "attn_output",
    **{name: f"ffn_{name}" for name in ("gate", "up", "down")},
    "post_attention_norm": "post_attention_norm",
    "post_mlp_norm": "post_ffw_norm",
}
ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True)
class _Family:
    """How an architecture of GGUF differs from its family.

    Attributes:
        model_type: The family's name in ``config.json``.
        interleaved: Rows of queries and keys were reordered, rotary pairs neighbours.
        fused: Gate and up are one tensor, gate first; so may be queries, keys and values.
    """

    model_type: str
    interleaved: bool = False
    fused: bool = False


_FAMILIES = {
    "llama": _Family("llama", interleaved=True),
    "qwen2": _Family("qwen2"),
    "qwen3": _Family("qwen3"),
    "smollm3": _Family("smollm3", interleaved=True),
    "internlm2": _Family("internlm2", interleaved=True),
    "glm4": _Family("glm4", fused=True),
    "chatglm": _Family("glm", fused=True),
}


def read_model(file: GgufFile) -> tuple[Architecture, dict[str, Part]]:
    """The architecture, and canonical name -> where the file keeps it.

    Raises:
        SourceError: The architecture is not supported, or metadata are missing.
    """
    where = str(file.files[0])
    name = file.metadata.get("general.architecture")
    family = _FAMILIES.get(str(name))
    if family is None:
        raise SourceError(
            f"general.architecture = {name!r} is not supported",
            where=where,
            remedy=f"supported: {', '.join(_FAMILIES)}",
        )
    model, _ = families.read(_config(file, str(name), family), where)
    model = replace(
        model,
        qkv_bias=not {"blk.0.attn_q.bias", "blk.0.attn_qkv.bias"}.isdisjoint(file.tensors),
        output_bias="blk.0.attn_output.bias" in file.tensors,
        mlp_bias="blk.0.ffn_up.bias" in file.tensors,
    )
    if ROPE_FACTORS in file.tensors:
        model = replace(model, rope=_with_factors(file, model.rope))
    wanted = (*names.shapes(model), "head")
    return model, {weight: _part(file, family, model, weight) for weight in wanted}


def _with_factors(file: GgufFile, rope: Rope) -> Rope:
    """Llama 3.1's scaling, which comes resolved to a divisor per pair."""
    plain, factors = np.array(rope.inverse_frequencies), file.read(ROPE_FACTORS)
    if factors.shape != plain.shape or not (factors > 0).all():
        raise SourceError(
            f"tensor {ROPE_FACTORS!r} is not {len(plain)} positive factors",
            where=str(file.files[0]),
            remedy="download it again",
        )
    return replace(rope, inverse_frequencies=tuple((plain / factors).tolist()))


def _config(file: GgufFile, name: str, family: _Family) -> dict[str, Any]:
    """The metadata as ``config.json`` would say it."""
    given, where = file.metadata, str(file.files[0])
    embedding = file.tensors.get("token_embd.weight")
    lacking = [key for key in (f"{name}.{key}" for key in _REQUIRED.values()) if key not in given]
    if lacking or embedding is None:
        raise SourceError(
            f"{lacking[0] if lacking else 'the tensor token_embd.weight'} is missing",
            where=where,
            remedy="convert the model again with a current llama.cpp",
        )

    def taken(table: Mapping[str, str]) -> dict[str, Any]:
        found = {ours: given.get(f"{name}.{theirs}") for ours, theirs in table.items()}
        return {field: value for field, value in found.items() if value is not None}

    config, scaling = taken(_REQUIRED | _OPTIONAL), taken(_SCALING)
    kind = scaling.get("rope_type", "none")
    if kind not in ("none", "linear", "yarn"):
        raise SourceError(
            f"{name}.rope.scaling.type = {kind!r} is not supported",
            where=where,
            remedy="supported: linear, yarn; or give the Hugging Face folder",
        )
    fields = Config(config, where)
    head_dim = fields.integer("hidden_size") // fields.integer("num_attention_heads")
    head_dim = fields.integer("head_dim", head_dim)
    rotated = Config(given, where).integer(f"{name}.rope.dimension_count", head_dim)
    if fields.integer("num_hidden_layers") > len(file.tensors):
        raise fields.wrong("num_hidden_layers", f"with {len(file.tensors)} tensors in all")
    windowed = family.model_type == "llama" and "sliding_window" in config
    return config | {
        "model_type": "mistral" if windowed else family.model_type,
        "vocab_size": embedding.shape[0],
        "head_dim": head_dim,
        "rope_scaling": None if kind == "none" else scaling,
        "partial_rotary_factor": rotated / head_dim,
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }


def _part(file: GgufFile, family: _Family, model: Architecture, name: str) -> Part:
    if name in _TOP:
        return Part(f"{_TOP[name]}.weight")
    _, index, rest = name.split(".", 2)
    what, _, bias = rest.partition(".")
    suffix = bias or "weight"
    fused = f"blk.{index}.attn_qkv.{suffix}"
    if what in ("q", "k", "v") and fused in file.tensors:
        queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
        start, rows = {"q": (0, queries), "k": (queries, keys), "v": (queries + keys, keys)}[what]
        return Part(fused, slice(start, start + rows))
    if what in ("gate", "up") and family.fused:
        start = model.intermediate * (what == "up")
        return Part(f"blk.{index}.ffn_up.{suffix}", slice(start, start + model.intermediate))
    tensor = f"blk.{index}.{_LAYER[what]}.{suffix}"
    if what in ("q", "k") and family.interleaved:
        return Part(tensor, _halves(model.heads if what == "q" else model.kv_heads, model.head_dim))
    return Part(tensor)


def _halves(heads: int, head_dim: int) -> NDArray[np.intp]:
    """Rows that bring rotary pairs from neighbours back to halves of a head."""
    rows = np.arange(heads * head_dim).reshape(heads, head_dim // 2, 2)
    return rows.swapaxes(1, 2).reshape(-1)
