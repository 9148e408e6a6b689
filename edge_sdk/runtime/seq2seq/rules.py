"""What a model may not write, whatever is likeliest: the source framework's rules of decoding.

In the order in which ``transformers`` applies them: no repeated run of tokens, no early end,
tokens that are never drawn, tokens that are not drawn first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_sdk.bundle.record import Decoding
from edge_sdk.runtime.generation.sampling import Sampler
from edge_sdk.runtime.seq2seq.network import Logits


class RuledSampler:
    """Draws the tokens of one output. Not to be shared between outputs.

    Args:
        decoding: The model's rules.
        sampler: Draws among what they leave.
        start: Tokens that the output begins with.
    """

    def __init__(self, decoding: Decoding, sampler: Sampler, start: Sequence[int]) -> None:
        self._decoding = decoding
        self._sampler = sampler
        self._tokens = list(start)
        self._begin = len(start)

    def next(self, logits: Logits) -> int:
        """The next token; logits ``[vocab]`` are left as they are."""
        barred = self._barred()
        if barred:
            logits = logits.copy()
            logits[barred] = -np.inf
        token = self._sampler.next(logits)
        self._tokens.append(token)
        return token

    def _barred(self) -> list[int]:
        rules, count = self._decoding, len(self._tokens)
        barred = [*rules.suppress, *repeating(self._tokens, rules.no_repeat_ngram)]
        if count == self._begin:
            barred += rules.begin_suppress
        if count < rules.min_length:
            barred += rules.eos
        return barred


def repeating(tokens: Sequence[int], length: int) -> list[int]:
    """Tokens that would complete a run of ``length`` tokens that was there before."""
    if not 0 < length <= len(tokens):
        return []
    last = list(tokens[len(tokens) - length + 1 :])
    starts = range(len(tokens) - length + 1)
    return [tokens[i + length - 1] for i in starts if list(tokens[i : i + length - 1]) == last]
