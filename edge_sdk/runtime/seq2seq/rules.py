"""What a model may not write, whatever is likeliest: the source framework's rules of decoding.

The repetition penalty comes first, as in ``transformers``; what bars tokens may then come in any
order: no repeated run of tokens, no run of the input's, no bad words, no early end, tokens that
are never drawn, tokens that are not drawn first.
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
        source: Tokens of the input; none for sound.
    """

    def __init__(
        self,
        decoding: Decoding,
        sampler: Sampler,
        start: Sequence[int],
        source: Sequence[int] = (),
    ) -> None:
        self._decoding = decoding
        self._source = source
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
        tokens = self._tokens
        barred = [*rules.suppress, *repeating(tokens, rules.no_repeat_ngram)]
        barred += repeating(tokens, rules.encoder_no_repeat_ngram, self._source)
        for *before, last in rules.bad_words:
            if before and tokens[-len(before) :] == before:
                barred.append(last)
        if count == self._begin:
            barred += rules.begin_suppress
        if count < rules.min_length:
            barred += rules.eos
        return barred


def repeating(tokens: Sequence[int], length: int, source: Sequence[int] | None = None) -> list[int]:
    """Tokens that would complete a run of ``length`` tokens of ``source``.

    Args:
        tokens: What is written.
        length: Of the runs; 0 allows all.
        source: Where the runs were before; ``tokens`` themselves by default.
    """
    if not 0 < length <= len(tokens) + (source is not None):
        return []
    before = tokens if source is None else source
    last = list(tokens[len(tokens) - length + 1 :])
    starts = range(len(before) - length + 1)
    return [before[i + length - 1] for i in starts if list(before[i : i + length - 1]) == last]
