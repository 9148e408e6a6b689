"""How many answers come out word for word, and how surprised the model is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch.nn import functional

from examples.assistant.answers import Style, styled
from examples.assistant.dialogue import Dialogue
from examples.assistant.encoding import encode


@dataclass(frozen=True)
class Score:
    """What a model makes of held-out dialogues.

    Attributes:
        exact_match: Share of answers that greedy decoding gives word for word.
        perplexity: Over all tokens of the dialogues.
        misses: What was asked, said and expected where they differ.
    """

    exact_match: float
    perplexity: float
    misses: tuple[str, ...]


@torch.no_grad()
def score(
    model: torch.nn.Module,
    tokenizer: Tokenizer,
    dialogues: Sequence[Dialogue],
    style: Style = "plain",
) -> Score:
    """Score a model by one pass over each dialogue.

    Greedy decoding after the true history gives an answer word for word exactly where each of
    its tokens is the likeliest after the ones before it, so nothing needs to be generated.
    """
    model.eval()
    surprise, tokens_seen, hits, misses = 0.0, 0, 0, []
    for dialogue in dialogues:
        encoded = encode(tokenizer, dialogue.messages(style))
        tokens = torch.tensor([encoded.tokens])
        logits = model(tokens[:, :-1])[0].float()
        surprise += functional.cross_entropy(logits, tokens[0, 1:], reduction="sum").item()
        tokens_seen += len(logits)
        likeliest = logits.argmax(dim=1).tolist()
        starts = [
            at for at in range(1, len(encoded.said)) if encoded.said[at] > encoded.said[at - 1]
        ]
        for start, exchange in zip(starts, dialogue.exchanges, strict=True):
            end = encoded.said.index(False, start)
            said = likeliest[start - 1 : end - 1]
            if said == list(encoded.tokens[start:end]):
                hits += 1
            else:
                text = tokenizer.decode(said, skip_special_tokens=False)
                misses.append(
                    f"[{exchange.intent}] {exchange.question!r} -> {text!r}, "
                    f"not {styled(exchange.answer, style)!r}"
                )
    return Score(
        exact_match=hits / (hits + len(misses)),
        perplexity=float(torch.tensor(surprise / tokens_seen).exp()),
        misses=tuple(misses),
    )
