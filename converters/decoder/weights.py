"""The seam between weight files and the graph builder: canonical names, read one at a time.

Canonical names (``i`` is the layer)::

    embed                     [vocab, hidden]
    layers.i.attention_norm   [hidden]              layers.i.mlp_norm         [hidden]
    layers.i.q|k|v            [out, hidden]         layers.i.q|k|v.bias       [out]
    layers.i.q_norm|k_norm    [head_dim]
    layers.i.o                [hidden, heads * head_dim]   layers.i.o.bias    [hidden]
    layers.i.gate|up          [intermediate, hidden]       layers.i.gate|up.bias
    layers.i.down             [hidden, intermediate]       layers.i.down.bias
    layers.i.post_attention_norm | post_mlp_norm    [hidden]
    norm                      [hidden]              head                      [vocab, hidden]

Matrices are ``[out, in]``, as torch keeps them. Rotary pairs are halves of the
head (``rotate_half``) unless the architecture says interleaved: a reader whose
file holds another order permutes.

Nodes of the graph, which a :class:`WeightPlan` gives formats to::

    layers.i.qkv   layers.i.o   layers.i.gate_up   layers.i.down   head
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from converters.quantize import Blocks

Bits = Literal[4, 8, 16, 32]


@dataclass(frozen=True)
class WeightFormat:
    """How one node's weight is stored.

    Attributes:
        bits: 4 or 8 in blocks (``MatMulNBits``), 16 or 32 as float.
        block_size: Weights along the input axis that share a scale.
        symmetric: Zero is the middle code; otherwise each block has a zero point.
    """

    bits: Bits
    block_size: int = 32
    symmetric: bool = True


@dataclass(frozen=True)
class WeightPlan:
    """Node name -> format; nodes without an entry have the default.

    The embedding table has the head's format where both are one tensor, else
    ``embed``'s own entry or the default.
    """

    default: WeightFormat
    nodes: Mapping[str, WeightFormat] = field(default_factory=dict)

    def of(self, node: str) -> WeightFormat:
        """The format of a node's weight."""
        return self.nodes.get(node, self.default)


class Weights(Protocol):
    """A model's weights under canonical names, read on demand. Safe to read in any order."""

    def names(self) -> frozenset[str]:
        """Canonical names that are there."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a weight, without reading it."""

    def read(self, name: str) -> NDArray[np.float32]:
        """One weight in float32; the only copy in memory is the one returned."""

    def blocks(self, name: str, wanted: WeightFormat) -> Blocks | None:
        """The weight already quantized in exactly this format, or ``None``.

        A GGUF file's own Q4_0 and Q8_0 blocks, or what a calibration has left in
        files, are taken over without a second rounding.
        """
