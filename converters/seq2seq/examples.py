"""What candidates are compared, calibrated and timed on: pairs, as the two graphs see them.

The source reads each input and writes its output; where a pair has a target, that takes the
output's place. The tokens are then given to every candidate, whatever it would have written
itself: teacher forcing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.data import split
from converters.dataset import Array, Dataset, Feeds
from converters.sampling import TIMED_CALLS
from converters.seq2seq.forced import greedy
from converters.seq2seq.pairs import Pairs, open_tokenizer
from converters.seq2seq.source import Seq2SeqSource
from edge_sdk.runtime.seq2seq.network import TOKENS, Network

# Tokens of each output that are compared; the cross attention is met by every one of them.
MOST_TOKENS = 48
# Pairs that are read and written, some twenty tokens each: enough to tell candidates apart.
MOST_PAIRS = 64
# Cross keys and values of all samples together, in bytes, and how many samples at least.
MOST_BYTES, LEAST = 256 << 20, 4


@dataclass(frozen=True)
class Examples:
    """Pairs as data sets, divided alike.

    Attributes:
        encoder: Encoder inputs.
        decoder: Decoder calls: the first tokens one by one, as they are drawn and timed, then
            the others at once; cross keys and values are the source's.
        forced: Calls of both graphs together, to evaluate on.
        written: What the source writes for each of them.
        targets: What should be written; empty where the data does not say.
        start: Number of tokens that an output begins with.
    """

    encoder: Dataset
    decoder: Dataset
    forced: Dataset
    written: tuple[tuple[int, ...], ...]
    targets: tuple[str, ...]
    start: int


@dataclass(frozen=True)
class _Example:
    feeds: Feeds
    read: Feeds
    tokens: tuple[int, ...]
    written: tuple[int, ...]


def examples(source: Seq2SeqSource, network: Network, pairs: Pairs) -> Examples:
    """Lets the source read and write all pairs that are worth it.

    Args:
        source: The model.
        network: Its two graphs.
        pairs: What to read.
    """
    tokenizer = open_tokenizer(source)
    found: list[_Example] = []
    held = start = 0
    items = pairs.items
    if len(items) > MOST_PAIRS:  # files are often sorted
        chosen = np.random.default_rng(0).permutation(len(items))[:MOST_PAIRS].tolist()
        items = tuple(items[i] for i in chosen)
    for pair in items:
        begun, drawn = greedy(network, source.decoding, pair.feeds, MOST_TOKENS)
        target = drawn if pair.target is None else _encoded(tokenizer, pair.target)
        read = network.read(pair.feeds)
        tokens = (*begun, *target[: MOST_TOKENS - 1])[: source.decoding.context]
        ended = tuple(token for token in drawn if token not in source.decoding.eos)
        found.append(_Example(pair.feeds, read, tokens, ended))
        start = len(begun)
        held += sum(array.nbytes for array in read.values())
        if held > MOST_BYTES and len(found) >= LEAST:
            break
    whole = _dataset([({**e.feeds, TOKENS: _row(e.tokens)},) for e in found], pairs)
    numbered = _dataset([({"number": np.array(i)},) for i in range(len(found))], pairs)
    evaluated = [int(sample[0]["number"]) for sample in split(numbered)[1].samples]
    targets = [items[i].target for i in evaluated]
    return Examples(
        encoder=_dataset([(e.feeds,) for e in found], pairs),
        decoder=_dataset([_calls(e, start) for e in found], pairs),
        forced=whole.take(evaluated),
        written=tuple(found[i].written for i in evaluated),
        targets=tuple(t for t in targets if t is not None) if pairs.have_targets else (),
        start=start,
    )


def _calls(example: _Example, start: int) -> tuple[Feeds, ...]:
    first, rest = example.tokens[:start], example.tokens[start:]
    parts = [first, *([token] for token in rest[: TIMED_CALLS - 1]), rest[TIMED_CALLS - 1 :]]
    return tuple({**example.read, TOKENS: _row(part)} for part in parts if part)


def _row(tokens: Sequence[int]) -> Array:
    return np.array([tokens], np.int64)


def _dataset(samples: Sequence[tuple[Feeds, ...]], pairs: Pairs) -> Dataset:
    return Dataset(tuple(samples), None, pairs.origin, pairs.digest)


def _encoded(tokenizer: Any, target: str) -> list[int]:
    ids: list[int] = tokenizer.encode(target, add_special_tokens=False).ids
    return ids
