"""Writes a decoder as a GGUF file with every matrix in one type, for llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from converters.decoder.source import DecoderSource

# Canonical name -> GGUF name, per layer.
LAYER = {
    "attention_norm": "attn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
    "mlp_norm": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
}  # fmt: skip


def write_gguf(source: DecoderSource, path: Path, kind: gguf.GGMLQuantizationType) -> Path:
    """Writes a Llama-architecture model with a tied head.

    Args:
        source: The model.
        path: The file.
        kind: Type of all matrices; norms stay float32.
    """
    writer = gguf.GGUFWriter(path, "llama", use_temp_file=True)
    _metadata(writer, source)
    _tokenizer(writer, json.loads(source.tokenizer), source)
    names = {"token_embd": "embed", "output_norm": "norm"}
    for index in range(source.architecture.layers):
        names |= {
            f"blk.{index}.{theirs}": f"layers.{index}.{ours}" for ours, theirs in LAYER.items()
        }
    for theirs, ours in names.items():
        weight = source.weights.read(ours)
        if ours.endswith((".q", ".k")):
            weight = _interleaved(weight, source.architecture.head_dim)
        name = f"{theirs}.weight"
        if weight.ndim == 1:
            writer.add_tensor(name, weight)
        else:
            writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _interleaved(weight: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """Rotary pairs as neighbours, as llama.cpp's ``llama`` architecture has them."""
    halves = weight.reshape(-1, 2, head_dim // 2, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)


def _metadata(writer: gguf.GGUFWriter, source: DecoderSource) -> None:
    shape = source.architecture
    writer.add_name(source.name)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(2 * len(shape.rope.inverse_frequencies))
    writer.add_rope_freq_base(_rope_base(shape.rope.inverse_frequencies))
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_vocab_size(shape.vocab)


def _rope_base(frequencies: tuple[float, ...]) -> float:
    """Theta of unscaled frequencies ``theta ** (-i / n)``."""
    return round(frequencies[1] ** -len(frequencies), 3)


def _tokenizer(
    writer: gguf.GGUFWriter, tokenizer: dict[str, dict[str, dict[str, int]]], source: DecoderSource
) -> None:
    model = tokenizer["model"]
    special = {added["content"] for added in tokenizer["added_tokens"]}  # type: ignore[index]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if text in special else gguf.TokenType.NORMAL for text in tokens]
    )
    writer.add_token_merges(merges)
    writer.add_bos_token_id(source.generation.bos or 0)
    writer.add_eos_token_id(source.generation.eos[0])
    writer.add_chat_template(source.generation.chat_template)
