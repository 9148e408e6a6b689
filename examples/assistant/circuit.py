"""Attention that can repeat what stands further up, before any training.

Answers are made of sentences that have been said before. A decoder learns to repeat them by
induction heads (Olsson et al. 2022, "In-context Learning and Induction Heads"): one layer notes
beside every token which tokens came before it, the next looks for a place where the same tokens
came before, and proposes what stood there. From random weights that takes thousands of steps to
form, so :func:`begin_by_copying` puts it in place.

The residual stream is laid out in sections to begin with; training is free to use it otherwise:
a constant, the token itself, and a note on each of the ``BACK`` tokens before it.
"""

from __future__ import annotations

import torch
from torch import nn

from examples.assistant.decoder import Attention, Decoder

CONSTANT, NOTE, BACK = 4, 32, 4
"""Dimensions of the constant and of a note; earlier tokens noted."""
FAST, RECENT, SLOW = 8, 12, 14
"""Rotary pairs: those before `FAST` tell neighbours apart, those from `SLOW` on hardly turn within
the context, and `RECENT` prefers what was said last."""
COUNTS = (1.0, 1.0, 0.8, 0.6)
"""How much it counts that the token before agrees, the one before that, and so on."""


@torch.no_grad()
def begin_by_copying(model: Decoder) -> None:
    """Set the embedding and the attention of the first two layers; other layers begin with 0."""
    for layer in model.layers:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
    words = slice(CONSTANT, model.shape.hidden_size - BACK * NOTE)
    table = model.embed_tokens.weight
    nn.init.constant_(table[:, :CONSTANT], 0.5)
    nn.init.normal_(table[:, words], std=0.1)
    reader = nn.init.orthogonal_(torch.empty(NOTE, words.stop - words.start))
    _note_tokens_before(model.layers[0].self_attn, words, reader)
    _look_for_same(model.layers[1].self_attn, words, reader)


def _note_tokens_before(attention: Attention, words: slice, reader: torch.Tensor) -> None:
    """Each head looks one token further back, and notes what it reads there.

    Queries and keys are the same for every token. Turned against each other by the angle of so
    many positions, they agree best where the key stands so many positions before the query.
    """
    size = attention.shape.head_dim
    pairs = torch.arange(FAST)
    angles = attention.shape.rope_theta ** (-2 * pairs / size)
    for head in range(BACK):
        turned = angles[:, None] * (head + 1)
        query, note = _rows(attention.q_proj, head, size), words.stop + head * NOTE
        query[pairs, :CONSTANT] = 0.42 * turned.cos()
        query[pairs + size // 2, :CONSTANT] = -0.42 * turned.sin()
        attention.o_proj.weight[note:, head * size :][:NOTE, :NOTE] = 0.15 * torch.eye(NOTE)
    for head in range(attention.shape.num_key_value_heads):
        _rows(attention.k_proj, head, size)[pairs, :CONSTANT] = 0.42
        _rows(attention.v_proj, head, size)[:NOTE, words] = reader


def _look_for_same(attention: Attention, words: slice, reader: torch.Tensor) -> None:
    """Two heads look where the same tokens came before, and propose the token that stood there."""
    size = attention.shape.head_dim
    slow = torch.arange(SLOW, size // 2)
    slow = torch.cat([slow, slow + size // 2])
    queries = [_rows(attention.q_proj, head, size) for head in range(2)]
    key, value = (_rows(layer, 0, size) for layer in (attention.k_proj, attention.v_proj))
    for back, counts in enumerate(COUNTS):
        match = nn.init.orthogonal_(torch.empty(len(slow), NOTE), 1.15 * counts)
        note = words.stop + back * NOTE
        key[slow, note : note + NOTE] = match
        for query in queries:  # what comes next has before it what is now, and what was before
            if back:
                query[slow, note - NOTE : note] = match
            else:
                query[slow, words] = 1.8 * match @ reader
    nn.init.orthogonal_(value[:, words])
    key[RECENT, :CONSTANT] = 0.4
    for head, query in enumerate(queries):
        query[RECENT, :CONSTANT] = 0.4
        attention.o_proj.weight[words, head * size :][:, :size] = 0.36 * value[:, words].T


def _rows(layer: nn.Linear, head: int, size: int) -> torch.Tensor:
    """The weights of one head."""
    return layer.weight[head * size : (head + 1) * size]
