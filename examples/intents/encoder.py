"""A BERT encoder with a mean-pooling classifier, in plain torch.

Post-layer-norm Transformer as in Devlin et al. 2018: learned positions, token types, GELU by
the error function. Attention is spelled out, so that the exported graph shows each step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of the network."""

    vocabulary: int
    labels: int
    hidden: int = 128
    heads: int = 4
    layers: int = 4
    positions: int = 64
    dropout: float = 0.1


class Embeddings(nn.Module):
    """Sum of word, position and token-type vectors, normalized."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.word = nn.Embedding(shape.vocabulary, shape.hidden)
        self.position = nn.Embedding(shape.positions, shape.hidden)
        self.token_type = nn.Embedding(2, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Map ids [batch, sequence] to vectors [batch, sequence, hidden]."""
        position = self.position.weight[: input_ids.shape[1]]
        total = self.word(input_ids) + self.token_type(token_type_ids) + position
        return self.dropout(self.norm(total))


class Attention(nn.Module):
    """Multi-head self-attention with residual and normalization."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.heads, self.head_size = shape.heads, shape.hidden // shape.heads
        self.query = nn.Linear(shape.hidden, shape.hidden)
        self.key = nn.Linear(shape.hidden, shape.hidden)
        self.value = nn.Linear(shape.hidden, shape.hidden)
        self.output = nn.Linear(shape.hidden, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attend within `x` [batch, sequence, hidden]; `bias` is added to the scores."""
        query, key, value = (self._split(layer(x)) for layer in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / self.head_size**0.5 + bias
        context = self.dropout(scores.softmax(dim=-1)) @ value
        merged = context.transpose(1, 2).flatten(2)
        return self.norm(x + self.dropout(self.output(merged)))

    def _split(self, x: Tensor) -> Tensor:
        """[batch, sequence, hidden] to [batch, heads, sequence, head_size]."""
        return x.unflatten(-1, (self.heads, self.head_size)).transpose(1, 2)


class FeedForward(nn.Module):
    """Position-wise network of four times the width, with residual and normalization."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.hidden, 4 * shape.hidden)
        self.down = nn.Linear(4 * shape.hidden, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, sequence, hidden] to the same shape."""
        return self.norm(x + self.dropout(self.down(functional.gelu(self.up(x)))))


class IntentEncoder(nn.Module):
    """Encoder with one linear classifier over the mean of the unmasked token vectors."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.embeddings = Embeddings(shape)
        self.attention = nn.ModuleList(Attention(shape) for _ in range(shape.layers))
        self.feed_forward = nn.ModuleList(FeedForward(shape) for _ in range(shape.layers))
        self.dropout = nn.Dropout(shape.dropout)
        self.classifier = nn.Linear(shape.hidden, shape.labels)
        self.apply(_initialize)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Classify and embed.

        Args:
            input_ids: Token ids, int64 [batch, sequence].
            attention_mask: 1 for tokens, 0 for padding, int64 [batch, sequence].
            token_type_ids: Segment of each token, int64 [batch, sequence]; zeros here.

        Returns:
            Logits [batch, labels] and token vectors [batch, sequence, hidden].
        """
        mask = attention_mask.to(torch.float32)
        bias = (1.0 - mask.unsqueeze(1).unsqueeze(1)) * -10000.0
        x = self.embeddings(input_ids, token_type_ids)
        for attention, feed_forward in zip(self.attention, self.feed_forward, strict=True):
            x = feed_forward(attention(x, bias))
        weight = mask.unsqueeze(2)
        mean = (x * weight).sum(dim=1) / weight.sum(dim=1)
        return self.classifier(self.dropout(mean)), x


def _initialize(module: nn.Module) -> None:
    """BERT's initialization: normal with deviation 0.02, zero biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
