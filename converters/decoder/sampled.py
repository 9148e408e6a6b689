"""Text that a model writes itself, for conversions without data.

What a model says is what its weights were trained to say, so it serves to
calibrate them (Liu et al., "LLM-QAT", 2023); what it does not show is how the
model does on a user's own text.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converters.decoder import graph
from converters.decoder.source import DecoderSource
from converters.decoder.texts import Tokens
from converters.decoder.weights import WeightFormat, WeightPlan
from converters.materialize import open_path, save
from edge_sdk.bundle.record import Sampling
from edge_sdk.runtime.engine import SessionOptions
from edge_sdk.runtime.generation.decoder import Decoder, kv_dtype
from edge_sdk.runtime.generation.kv import KVCache
from edge_sdk.runtime.generation.sampling import Sampler

ROWS, LENGTH = 16, 128
# Indistinguishable from fp32 in what it says, at a quarter of the bytes.
PLAN = WeightPlan(WeightFormat(bits=8))


def sample_documents(source: DecoderSource, tokens: int, threads: int) -> list[Tokens]:
    """Documents a model writes at temperature 1, the same ones every time.

    Args:
        source: The model.
        tokens: How many in all, at least.
        threads: Intra-op threads.
    """
    length = min(LENGTH, source.generation.context)
    with tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder:
        model = graph.build(source.architecture, source.weights, PLAN)
        session = open_path(save(model, Path(folder)), SessionOptions(threads=threads, arena=False))
        cache = KVCache(source.generation, ROWS, length, kv_dtype(session))
        decoder = Decoder(session, cache, source.generation.vocab)
        documents: list[Tokens] = []
        while sum(map(len, documents)) < tokens:
            documents += _batch(decoder, source, length, seed=len(documents))
    return documents


def _batch(decoder: Decoder, source: DecoderSource, length: int, seed: int) -> Sequence[Tokens]:
    """One document per row; each ends where the model ends it."""
    generation, rows = source.generation, decoder.cache.rows
    random = np.random.default_rng(seed)
    begin = random.integers(generation.vocab, size=rows).tolist()
    if generation.bos is not None:
        begin = [generation.bos] * rows
    sampling = [Sampling(temperature=1.0, seed=seed + row) for row in range(rows)]
    samplers = [Sampler(each) for each in sampling]
    documents = [[token] for token in begin]
    for past in range(length - 1):
        last = [document[-1] for document in documents]
        logits = decoder.decode(0, last, [past] * rows)
        for row, document in enumerate(documents):
            document.append(samplers[row].next(logits[row]))
    return [np.array(_ended(document, generation.eos), np.int64) for document in documents]


def _ended(document: Sequence[int], eos: Sequence[int]) -> Sequence[int]:
    end = next((i for i, token in enumerate(document[1:], start=2) if token in eos), None)
    return document[:end]
