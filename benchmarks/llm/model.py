"""Writes a decoder with seeded random weights as a Hugging Face folder.

What speed and memory depend on is real: shapes, dtype, layout, a tokenizer of
full size. ``python -m benchmarks.llm.model FOLDER`` writes the shape of
SmolLM2-360M. Only numpy is needed, and memory for one tensor.
"""

from __future__ import annotations

import argparse
import itertools
import json
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPACE = "Ġ"  # how byte-level BPE writes a space
ROWS = 1 << 13  # rows of a matrix drawn at a time


@dataclass(frozen=True)
class Shape:
    """A Llama-architecture decoder with a tied head."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int = 49152
    context: int = 2048

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.hidden // self.heads

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape, as Hugging Face names them."""
        hidden, kv, wide = self.hidden, self.kv_heads * self.head_dim, self.intermediate
        layer = {
            "input_layernorm": (hidden,),
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "post_attention_layernorm": (hidden,),
            "mlp.gate_proj": (wide, hidden),
            "mlp.up_proj": (wide, hidden),
            "mlp.down_proj": (hidden, wide),
        }
        layers = {
            f"model.layers.{index}.{name}.weight": shape
            for index in range(self.layers)
            for name, shape in layer.items()
        }
        embedding = {"model.embed_tokens.weight": (self.vocab, hidden)}
        return embedding | layers | {"model.norm.weight": (hidden,)}


SMOL_360M = Shape(hidden=960, layers=32, heads=15, kv_heads=5, intermediate=2560)
SMOL_135M = Shape(hidden=576, layers=30, heads=9, kv_heads=3, intermediate=1536)
TINY = Shape(hidden=64, layers=2, heads=4, kv_heads=2, intermediate=128, vocab=512, context=2048)
SHAPES = {"360m": SMOL_360M, "135m": SMOL_135M, "tiny": TINY}


def write(folder: Path, shape: Shape, seed: int = 0, *, changed_layer: int | None = None) -> Path:
    """Writes configuration, tokenizer and weights; same arguments, same bytes.

    Args:
        folder: Where to; made if absent.
        shape: Which decoder.
        seed: Of the weights.
        changed_layer: A layer whose weights are drawn anew, as a fine-tune would leave them.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    documents = {
        "config.json": config(shape),
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2},
        "tokenizer.json": tokenizer(shape.vocab),
        "tokenizer_config.json": {
            "tokenizer_class": "GPT2Tokenizer",
            "bos_token": SPECIAL[1],
            "eos_token": SPECIAL[2],
            "add_bos_token": False,
            "chat_template": CHAT_TEMPLATE,
        },
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, ensure_ascii=False), "utf-8")
    with (folder / "model.safetensors").open("wb") as file:
        write_safetensors(file, shape, seed, changed_layer)
    return folder


def config(shape: Shape) -> dict[str, object]:
    """The ``config.json`` of a Llama model."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }


def write_safetensors(
    file: BinaryIO, shape: Shape, seed: int, changed_layer: int | None = None
) -> None:
    """Writes all weights in bfloat16, a few thousand rows in memory at a time."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, dims in shape.tensors().items():
        end = offset + 2 * prod(dims)
        header[name] = {"dtype": "BF16", "shape": dims, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for number, (name, dims) in enumerate(shape.tensors().items()):
        changed = changed_layer is not None and name.startswith(f"model.layers.{changed_layer}.")
        random = np.random.default_rng((seed + changed, number))
        for rows in _draw(random, dims, shape):
            file.write(bfloat16(rows).tobytes())


def _draw(
    random: np.random.Generator, dims: Sequence[int], shape: Shape
) -> Iterator[NDArray[np.float32]]:
    """Rows of a weight: norms near one, matrices that keep the scale of activations.

    Special tokens' rows are zero, and with them their logits: answers never end early.
    """
    if len(dims) == 1:
        yield 1 + 0.1 * random.standard_normal(dims, dtype=np.float32)
        return
    table = dims[0] == shape.vocab
    scale = 0.04 if table else dims[1] ** -0.5
    for start in range(0, dims[0], ROWS):
        size = (min(ROWS, dims[0] - start), dims[1])
        rows = np.float32(scale) * random.standard_normal(size, dtype=np.float32)
        if table and start == 0:
            rows[: len(SPECIAL)] = 0
        yield rows


def bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounds to nearest even; the bits as integers."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def tokenizer(vocab: int) -> dict[str, object]:
    """A byte-level BPE ``tokenizer.json`` of any size: every short word of Latin letters."""
    tokens, merges = vocabulary(vocab)
    special = [
        {"id": number, "content": text, "special": True, "single_word": False,
         "lstrip": False, "rstrip": False, "normalized": False}
        for number, text in enumerate(SPECIAL)
    ]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "use_regex": True},
        "post_processor": None,
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {text: number for number, text in enumerate(tokens)},
            "merges": [" ".join(pair) for pair in merges],
        },
    }


def vocabulary(size: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens in order and the merges that make them: pairs, then triples, of letters."""
    tokens = [*SPECIAL, *_byte_characters()]
    merges = list(itertools.islice(_merges(), size - len(tokens)))
    return [*tokens, *map("".join, merges)], merges


def _merges() -> Iterator[tuple[str, str]]:
    starts = ["", SPACE]
    for letter in string.ascii_lowercase:
        yield SPACE, letter
    for length in itertools.count(1):
        for start in starts:
            for word in itertools.product(string.ascii_lowercase, repeat=length):
                for letter in string.ascii_lowercase:
                    yield start + "".join(word), letter


def _byte_characters() -> list[str]:
    """The printable character that GPT-2's byte-level BPE writes for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = itertools.count(0x100)
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def main() -> None:
    """Writes one shape."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.llm.model", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="360m")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--changed-layer", type=int, help="draw this layer's weights anew")
    args = parser.parse_args()
    write(args.folder, SHAPES[args.shape], args.seed, changed_layer=args.changed_layer)


if __name__ == "__main__":
    main()
