"""Writes decoders as GGUF files, after the rules of llama.cpp's own converter."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from numpy.typing import NDArray

from converters.decoder.architecture import Architecture
from converters.decoder.source import DecoderSource
from converters.decoder.weights import Weights

TOP = {"embed": "token_embd", "norm": "output_norm", "head": "output"}
LAYER = {
    "attention_norm": "attn_norm", "mlp_norm": "ffn_norm",
    "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
    "q_norm": "attn_q_norm", "k_norm": "attn_k_norm",
    "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
    "post_attention_norm": "post_attention_norm", "post_mlp_norm": "post_ffw_norm",
}  # fmt: skip
PERMUTED = ("llama", "internlm2", "smollm3")
FUSED = ("glm4", "chatglm")


def write_gguf(source: DecoderSource, path: Path, kind: Type) -> Path:
    """Writes a model of the Llama architecture with a byte-level tokenizer.

    Args:
        source: The model.
        path: The file.
        kind: Type of all matrices; norms stay float32.
    """
    generation, frequencies = source.generation, source.architecture.rope.inverse_frequencies
    tokenizer = from_tokenizer_json(source.tokenizer, "smollm") | {
        "ggml.bos_token_id": generation.bos or 0,
        "ggml.eos_token_id": generation.eos[0],
        "chat_template": generation.chat_template,
    }
    # Unscaled frequencies are theta ** (-i / n).
    theta = round(frequencies[1] ** -len(frequencies), 3)
    model = source.architecture
    return write(
        path, model, source.weights, arch="llama", matrices=kind, theta=theta,
        tokenizer=tokenizer,
        extra={"general.name": source.name, "llama.vocab_size": model.vocab},
    )  # fmt: skip


def write(
    path: Path,
    model: Architecture,
    weights: Weights,
    *,
    arch: str,
    types: Mapping[str, Type] | None = None,
    matrices: Type = Type.F32,
    theta: float = 10000.0,
    tokenizer: Mapping[str, object] | None = None,
    extra: Mapping[str, object] | None = None,
    tensors: Mapping[str, NDArray[np.float32]] | None = None,
) -> Path:
    """Writes a model.

    Args:
        path: The file.
        model: What it is.
        weights: Its weights.
        arch: GGUF's name of its architecture.
        types: Last part of GGUF's name (``ffn_up``) -> type.
        matrices: Type of those for which none is given; vectors stay float32.
        theta: Base of the rotary frequencies, before scaling.
        tokenizer: Metadata below ``tokenizer.``; a byte-level one of ``vocab`` tokens by default.
        extra: More metadata, by their whole key.
        tensors: More tensors.
    """
    writer = gguf.GGUFWriter(path, arch, use_temp_file=True)
    metadata(writer, model, theta)
    given = byte_tokens(model.vocab) if tokenizer is None else tokenizer
    for key, value in {**{f"tokenizer.{k}": v for k, v in given.items()}, **(extra or {})}.items():
        add(writer, key, value)
    for name, value in chain(stored(model, weights, arch), (tensors or {}).items()):
        usual = matrices if value.ndim > 1 else Type.F32
        kind = (types or {}).get(name.split(".")[-2], usual)
        data = gguf.quants.quantize(np.ascontiguousarray(value), kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def metadata(writer: gguf.GGUFWriter, model: Architecture, theta: float) -> None:
    """What is said of the architecture."""
    writer.add_block_count(model.layers)
    writer.add_context_length(model.context)
    writer.add_embedding_length(model.hidden)
    writer.add_feed_forward_length(model.intermediate)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.kv_heads)
    writer.add_key_length(model.head_dim)
    writer.add_value_length(model.head_dim)
    writer.add_layer_norm_rms_eps(model.norm_eps)
    writer.add_rope_dimension_count(2 * len(model.rope.inverse_frequencies))
    writer.add_rope_freq_base(theta)


def add(writer: gguf.GGUFWriter, key: str, value: object) -> None:
    """Metadata by Python's types; numbers are uint32 and float32, as llama.cpp writes them."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def stored(
    model: Architecture, weights: Weights, arch: str
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """GGUF's names and layouts of all weights, one at a time."""
    for name in sorted(weights.names()):
        value = weights.read(name)
        if name in TOP:
            yield f"{TOP[name]}.weight", value
            continue
        _, index, rest = name.split(".", 2)
        what, _, bias = rest.partition(".")
        if what in ("q", "k") and arch in PERMUTED:
            value = neighbours(value, model.heads if what == "q" else model.kv_heads)
        if arch in FUSED and what == "gate":
            continue
        if arch in FUSED and what == "up":
            value = np.concatenate([weights.read(f"layers.{index}.gate"), value])
        yield f"blk.{index}.{LAYER[what]}.{bias or 'weight'}", value


def neighbours(value: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """llama.cpp's order of rows: rotary pairs beside each other and not half a head apart."""
    rows = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
    return rows.swapaxes(1, 2).reshape(value.shape)


def byte_tokens(count: int) -> dict[str, object]:
    """A byte-level vocabulary of ``count`` tokens: a few control tokens, then any text."""
    texts = ["<s>", "</s>", "<|im_end|>", "!", '"', '!"']
    texts += [f"t{number}" for number in range(len(texts), count)]
    kinds = [3, 3, 3] + [1] * (count - 3)
    return {
        "ggml.model": "gpt2",
        "ggml.pre": "smollm",
        "ggml.tokens": texts,
        "ggml.token_type": kinds,
        "ggml.merges": ['! "'],
        "ggml.bos_token_id": 0,
        "ggml.eos_token_id": 1,
        "chat_template": "{{ messages }}",
    }


def from_tokenizer_json(content: bytes, pre: str) -> dict[str, object]:
    """The metadata that llama.cpp's converter makes of a byte-level tokenizer."""
    tokenizer = json.loads(content)
    vocab = dict(tokenizer["model"]["vocab"])
    added = {token["content"]: token for token in tokenizer["added_tokens"]}
    vocab |= {text: token["id"] for text, token in added.items()}
    texts = sorted(vocab, key=vocab.__getitem__)
    special = {text for text, token in added.items() if token["special"]}
    return {
        "ggml.model": "gpt2",
        "ggml.pre": pre,
        "ggml.tokens": texts,
        "ggml.token_type": [3 if t in special else 4 if t in added else 1 for t in texts],
        "ggml.merges": [
            pair if isinstance(pair, str) else " ".join(pair)
            for pair in tokenizer["model"]["merges"]
        ],
    }
