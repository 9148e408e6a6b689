"""A Llama-architecture decoder in plain torch, and its Hugging Face folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """Sizes of the decoder; names as in ``config.json`` of Llama."""

    vocab_size: int
    hidden_size: int = 256
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    max_position_embeddings: int = 1024
    rope_theta: float = 1e7
    rms_norm_eps: float = 1e-5

    def config(self, eos: int, pad: int) -> dict[str, object]:
        """The content of ``config.json``."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            **vars(self),
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "rope_scaling": None,
            "bos_token_id": None,
            "eos_token_id": eos,
            "pad_token_id": pad,
            "torch_dtype": "float16",
        }


class Attention(nn.Module):
    """Grouped-query attention with rotary positions; heads rotate by halves."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        query = shape.num_attention_heads * shape.head_dim
        key = shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, query, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, key, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, key, bias=False)
        self.o_proj = nn.Linear(query, shape.hidden_size, bias=False)

    def forward(self, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Map [batch, sequence, hidden] to the same."""
        batch, sequence, _ = hidden.shape
        split = (batch, sequence, -1, self.shape.head_dim)
        query, key, value = (
            project(hidden).view(split).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        # Query heads that share a key head are stacked: on a CPU faster than torch's own attention.
        grouped = (batch, self.shape.num_key_value_heads, -1, self.shape.head_dim)
        scores = query.reshape(grouped) @ key.transpose(-1, -2) * self.shape.head_dim**-0.5
        later = torch.full((sequence, sequence), -torch.inf, dtype=scores.dtype).triu(1)
        scores = scores.view(batch, -1, sequence, sequence) + later
        shares = scores.softmax(dim=-1).to(value.dtype).view(*grouped[:3], sequence)
        mixed = (shares @ value).view(batch, -1, sequence, self.shape.head_dim)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, sequence, -1))


class Mlp(nn.Module):
    """Gated MLP (SwiGLU)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map [..., hidden] to the same."""
        return self.down_proj(functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class Layer(nn.Module):
    """One decoder layer, normalized first."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = Mlp(shape)

    def forward(self, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Map [batch, sequence, hidden] to the same."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), cos, sin)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class Decoder(nn.Module):
    """The whole model; the head is the embedding table. Parameter names are Llama's."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
        cos, sin = rotary(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [batch, sequence, vocabulary] of tokens [batch, sequence]."""
        sequence = tokens.shape[1]
        hidden = self.embed_tokens(tokens)
        for layer in self.layers:
            hidden = layer(hidden, self.cos[:sequence], self.sin[:sequence])
        return functional.linear(self.norm(hidden), self.embed_tokens.weight)

    @torch.no_grad()
    def round_to_half(self) -> None:
        """Round weights to what :meth:`save` keeps of them."""
        for parameter in self.parameters():
            parameter.copy_(parameter.half())

    def save(self, folder: Path, eos: int, pad: int) -> None:
        """Write ``config.json`` and ``model.safetensors`` in float16."""
        tensors = {
            f"model.{name}": tensor.half().contiguous()
            for name, tensor in self.state_dict().items()
        }
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        config = json.dumps(self.shape.config(eos, pad), indent=2)
        (folder / "config.json").write_text(config + "\n", encoding="utf-8")


def rotary(shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines [positions, head_dim] of rotary position embedding."""
    pairs = torch.arange(0, shape.head_dim, 2) / shape.head_dim
    angles = torch.outer(
        torch.arange(shape.max_position_embeddings).float(), shape.rope_theta**-pairs
    )
    both = torch.cat([angles, angles], dim=1)
    return both.cos(), both.sin()


def rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate each head's halves by its position."""
    first, second = heads.chunk(2, dim=-1)
    return (heads * cos + torch.cat([-second, first], dim=-1) * sin).to(heads.dtype)
