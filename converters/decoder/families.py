"""Families of decoders: what ``config.json`` says, and where checkpoints keep their weights.

Adding a family is one function that reads its configuration, one that places
its weights, and a line in ``_FAMILIES``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from converters.decoder import names, rope
from converters.decoder.architecture import Activation, Architecture
from converters.decoder.config import Config

_ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
# Of ONNX Runtime's GroupQueryAttention on every provider.
HEAD_MULTIPLE = 16
# Buffers that older versions of the reference implementations saved with the weights.
_IGNORED = re.compile(r".*(rotary_emb|rotary_pos_emb)\.inv_freq$")


@dataclass(frozen=True)
class Part:
    """Where a checkpoint keeps a weight: a tensor, or some of its rows."""

    tensor: str
    rows: slice | NDArray[np.intp] | None = None


class _Family(NamedTuple):
    read: Callable[[Config], Architecture]
    place: Callable[[Architecture, str], Part]


def read(config: Mapping[str, Any], where: str) -> tuple[Architecture, dict[str, Part]]:
    """The architecture, and canonical name -> where the checkpoint keeps it.

    A tied head is placed too: some checkpoints hold it once more.

    Args:
        config: Content of ``config.json``.
        where: Its file, for messages.

    Raises:
        SourceError: The model is of a kind that is not supported.
    """
    fields = Config(config, where)
    family = _FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise fields.wrong(
            "model_type",
            "is not supported",
            f"supported: {', '.join(_FAMILIES)}; "
            "export any other model to ONNX and convert the .onnx file",
        )
    if fields.has("quantization_config"):
        raise fields.wrong(
            "quantization_config",
            "is not supported",
            "give the unquantized checkpoint; quantization is the conversion's own work",
        )
    model = family.read(fields)
    return model, places(model)


def places(model: Architecture) -> dict[str, Part]:
    """Canonical name -> where checkpoints of the architecture's family keep it."""
    place = _FAMILIES[model.family].place
    return {name: place(model, name) for name in (*names.shapes(model), "head")}


def ignored(tensor: str) -> bool:
    """Whether a checkpoint may hold this tensor although nothing reads it."""
    return _IGNORED.match(tensor) is not None


def _llama(config: Config) -> Architecture:
    return replace(
        _common(config),
        qkv_bias=config.flag("attention_bias", False),
        output_bias=config.flag("attention_bias", False),
        mlp_bias=config.flag("mlp_bias", False),
    )


def _mistral(config: Config) -> Architecture:
    return _windowed(_common(config), config)


def _qwen2(config: Config) -> Architecture:
    return _layers_windowed(replace(_common(config), qkv_bias=True), config)


def _qwen3(config: Config) -> Architecture:
    biased = config.flag("attention_bias", False)
    model = replace(
        _common(config, head_dim=128), qkv_bias=biased, output_bias=biased, qk_norm=True
    )
    return _layers_windowed(model, config)


def _smollm3(config: Config) -> Architecture:
    model = replace(_llama(config), tied=config.flag("tie_word_embeddings", True))
    rotated = config.values.get("no_rope_layers")  # despite its name: 1 where it is rotated
    if rotated is None:
        interval = config.integer("no_rope_layer_interval", 4)
        rotated = [int((index + 1) % interval != 0) for index in range(model.layers)]
    if not isinstance(rotated, list) or len(rotated) != model.layers:
        raise config.wrong("no_rope_layers", f"must be a list of {model.layers} numbers")
    unrotated = frozenset(index for index, flag in enumerate(rotated) if not flag)
    return _layers_windowed(replace(model, unrotated_layers=unrotated), config)


def _internlm2(config: Config) -> Architecture:
    biased = config.flag("bias", False)
    return replace(_common(config), qkv_bias=biased, output_bias=biased)


def _internlm3(config: Config) -> Architecture:
    biased = config.flag("bias", False)
    return replace(
        _common(config),
        qkv_bias=config.flag("qkv_bias", False),
        output_bias=biased,
        mlp_bias=biased,
    )


def _glm(config: Config) -> Architecture:
    model = _common(config, head_dim=128, rotated=0.5, interleaved=True, eps=1.5625e-07)
    return replace(model, qkv_bias=config.flag("attention_bias", True))


def _glm4(config: Config) -> Architecture:
    return replace(_glm(config), post_norms=True)


def _common(
    config: Config,
    *,
    head_dim: int | None = None,
    rotated: float = 1.0,
    interleaved: bool = False,
    eps: float = 1e-6,
) -> Architecture:
    """What all families have, with the defaults in which they differ."""
    heads, hidden = config.integer("num_attention_heads"), config.integer("hidden_size")
    head_dim = config.integer("head_dim", head_dim or hidden // heads)
    embedding, context = rope.read(
        config, head_dim, theta=10000.0, share=rotated, interleaved=interleaved
    )
    _check_heads(config, head_dim, 2 * len(embedding.inverse_frequencies))
    kv_heads = config.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise config.wrong("num_key_value_heads", f"does not divide {heads} attention heads")
    return Architecture(
        family=str(config.values["model_type"]),
        layers=config.integer("num_hidden_layers"),
        hidden=hidden,
        intermediate=config.integer("intermediate_size"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=config.integer("vocab_size"),
        context=context,
        norm_eps=config.number("rms_norm_eps", eps),
        rope=embedding,
        activation=_ACTIVATIONS[config.choice("hidden_act", tuple(_ACTIVATIONS), "silu")],
        tied=config.flag("tie_word_embeddings", False),
    )


def _check_heads(config: Config, head_dim: int, rotated: int) -> None:
    """Refuses heads that the attention kernel cannot compute."""
    named = "head_dim" if config.has("head_dim") else "hidden_size"
    share = "partial_rotary_factor" if config.has("partial_rotary_factor") else named
    for field, width, what in (
        (named, head_dim, "makes heads of {} dimensions"),
        (share, rotated, "rotates {} dimensions of a head"),
    ):
        if width % HEAD_MULTIPLE:
            raise config.wrong(
                field,
                f"{what.format(width)}, which is not a multiple of {HEAD_MULTIPLE}",
                "ONNX Runtime's GroupQueryAttention computes no such heads; "
                "export the model to ONNX and convert that",
            )


def _windowed(model: Architecture, config: Config) -> Architecture:
    """Every layer sees ``sliding_window`` tokens back; ``null`` is no limit."""
    if "sliding_window" in config.values and not config.has("sliding_window"):
        return model
    return replace(model, sliding_window=config.integer("sliding_window", 4096))


def _layers_windowed(model: Architecture, config: Config) -> Architecture:
    """Some layers see ``sliding_window`` tokens back, where the configuration switches it on."""
    if not config.flag("use_sliding_window", False):
        return model
    kinds = config.values.get("layer_types")
    if kinds is None:
        full = frozenset(range(min(config.integer("max_window_layers", 28, least=0), model.layers)))
    elif isinstance(kinds, list) and set(kinds) <= {"full_attention", "sliding_attention"}:
        full = frozenset(index for index, kind in enumerate(kinds) if kind == "full_attention")
    else:
        raise config.wrong("layer_types", "is not supported")
    return replace(_windowed(model, config), unwindowed_layers=full)


_TOP = {"embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
_LAYER = {
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    **{name: f"self_attn.{name}_proj" for name in "qkvo"},
    **{name: f"self_attn.{name}" for name in ("q_norm", "k_norm")},
    **{name: f"mlp.{name}_proj" for name in ("gate", "up", "down")},
}
_GLM4_LAYER = _LAYER | {
    "post_attention_norm": "post_self_attn_layernorm",
    "post_mlp_norm": "post_mlp_layernorm",
}
_INTERNLM2_TOP = {"embed": "model.tok_embeddings", "norm": "model.norm", "head": "output"}
_INTERNLM2_LAYER = {
    "attention_norm": "attention_norm",
    "mlp_norm": "ffn_norm",
    **dict.fromkeys("qkv", "attention.wqkv"),
    "o": "attention.wo",
    "gate": "feed_forward.w1",
    "up": "feed_forward.w3",
    "down": "feed_forward.w2",
}


def _llama_part(model: Architecture, name: str) -> Part:
    return Part(_tensor(name, _TOP, _LAYER))


def _glm_part(model: Architecture, name: str) -> Part:
    """Gate and up are one tensor, gate first."""
    last, width = name.rpartition(".")[2], model.intermediate
    if last in ("gate", "up"):
        start = width * (last == "up")
        fused = f"{name.rpartition('.')[0]}.gate_up"
        return Part(
            _tensor(fused, _TOP, {"gate_up": "mlp.gate_up_proj"}), slice(start, start + width)
        )
    return Part(_tensor(name, _TOP, _GLM4_LAYER))


def _internlm2_part(model: Architecture, name: str) -> Part:
    """Queries, keys and values are one tensor: for each key head its queries, itself, its value."""
    tensor = _tensor(name, _INTERNLM2_TOP, _INTERNLM2_LAYER)
    which = name.split(".")[2] if name.startswith("layers.") else ""
    if which not in ("q", "k", "v"):
        return Part(tensor)
    queries = model.heads // model.kv_heads
    rows = np.arange((model.heads + 2 * model.kv_heads) * model.head_dim)
    groups = rows.reshape(model.kv_heads, queries + 2, model.head_dim)
    chosen = {
        "q": slice(0, queries),
        "k": slice(queries, queries + 1),
        "v": slice(queries + 1, None),
    }
    return Part(tensor, groups[:, chosen[which]].reshape(-1))


def _tensor(name: str, top: Mapping[str, str], layer: Mapping[str, str]) -> str:
    """A checkpoint's name of a tensor, from the canonical name."""
    if name in top:
        return f"{top[name]}.weight"
    _, index, rest = name.split(".", 2)
    what, _, bias = rest.partition(".")
    return f"model.layers.{index}.{layer[what]}.{bias or 'weight'}"


_FAMILIES: Mapping[str, _Family] = {
    "llama": _Family(_llama, _llama_part),
    "mistral": _Family(_mistral, _llama_part),
    "smollm3": _Family(_smollm3, _llama_part),
    "qwen2": _Family(_qwen2, _llama_part),
    "qwen3": _Family(_qwen3, _llama_part),
    "internlm2": _Family(_internlm2, _internlm2_part),
    "internlm3": _Family(_internlm3, _llama_part),
    "glm": _Family(_glm, _glm_part),
    "glm4": _Family(_glm4, _glm_part),
}
