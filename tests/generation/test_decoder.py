from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import BundleError, EngineError
from edge_sdk.runtime import process
from edge_sdk.runtime.engine import SessionOptions, find_engine
from edge_sdk.runtime.generation.decoder import Decoder, kv_dtype
from edge_sdk.runtime.generation.kv import KVCache
from tests.generation import tiny

TOKENS = np.random.default_rng(1).integers(0, 256, 90).tolist()


@pytest.fixture(scope="module")
def session(tiny_bundle):
    variant = open_bundle(tiny_bundle).variants[0]
    graph = variant.blobs.path(variant.record.graphs[0].parts[0].digest)
    return find_engine("onnx").open(graph, SessionOptions(threads=1))


@pytest.fixture
def decoder(session):
    return Decoder(session, KVCache(tiny.GENERATION, 4, 128, kv_dtype(session)), tiny.VOCAB)


def cached(decoder: Decoder, row: int, tokens: int) -> list[np.ndarray]:
    return [part[0, :, :tokens].copy() for _, part in decoder.cache.slices(row, 1)]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_binding_agrees_with_a_plain_run(session, decoder):
    """Against the engine's copying path, with a past of its own."""
    kv = {
        f"past_key_values.{name}": np.zeros((1, tiny.KV_HEADS, 90, tiny.HEAD_DIM), np.float32)
        for name, _ in decoder.cache.slices(0, 1)
    }
    feeds = {
        "input_ids": np.array([TOKENS]),
        "seqlens_k": np.array([89], np.int32),
        "total_sequence_length": np.array(90, np.int32),
        "logits_at": np.arange(90),
        **kv,
    }
    np.testing.assert_allclose(
        session.run(feeds)["logits"][0], decoder.logits(TOKENS), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("size", [2, 3, 7, 16, 64])
def test_prompt_gives_the_same_bits_however_it_is_cut(decoder, size):
    decoder.prefill(0, TOKENS, 0)
    for start in range(0, len(TOKENS), size):
        decoder.prefill(2, TOKENS[start : start + size], start)
    assert same(cached(decoder, 0, 90), cached(decoder, 2, 90))


def test_rows_in_one_call_are_computed_as_if_alone(decoder):
    lengths = (10, 33, 5, 64)
    for row, length in enumerate(lengths):
        decoder.prefill(row, TOKENS[:length], 0)
    before = [cached(decoder, row, length) for row, length in enumerate(lengths)]
    together = decoder.decode(0, [7] * 4, lengths)
    after = [cached(decoder, row, length + 1) for row, length in enumerate(lengths)]
    for row, length in enumerate(lengths):
        alone = decoder.decode(row, [7], [length])
        assert np.array_equal(together[row], alone[0])
        assert same(after[row], cached(decoder, row, length + 1))
        assert same(before[row], cached(decoder, row, length))


def test_step_by_step_agrees_with_teacher_forcing(decoder):
    expected = decoder.logits(TOKENS[:30])
    found = [decoder.decode(1, [token], [i])[0] for i, token in enumerate(TOKENS[:30])]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_chunk_without_logits_leaves_the_same_cache(decoder):
    decoder.prefill(0, TOKENS[:20], 0)
    assert decoder.prefill(1, TOKENS[:20], 0, last=False) is None
    assert same(cached(decoder, 0, 20), cached(decoder, 1, 20))


def test_copied_and_swapped_rows_continue_as_the_originals(decoder):
    decoder.prefill(0, TOKENS[:20], 0)
    decoder.prefill(1, TOKENS[40:70], 0)
    expected = [decoder.decode(0, [7], [20])[0], decoder.decode(1, [7], [30])[0]]
    decoder.cache.copy(0, 2, 20)
    decoder.cache.swap(0, 1, 30)
    assert np.array_equal(decoder.decode(2, [7], [20])[0], expected[0])
    assert np.array_equal(decoder.decode(0, [7], [30])[0], expected[1])
    assert np.array_equal(decoder.decode(1, [7], [20])[0], expected[0])


def test_cache_takes_memory_as_tokens_come():
    generation = msgspec.structs.replace(tiny.GENERATION, head_dim=64, kv_heads=8)
    cache = KVCache(generation, 4, 8192, "float32")
    size = sum(part.nbytes for _, part in cache.slices(0, 4))
    assert size == 256 * 2**20
    before = process.rss()
    for _, part in cache.slices(0, 1):
        part[:, :, :16] = 1
    assert process.rss() - before < 4 * 2**20
    assert all((part[:, :, 16:32] == 0).all() for _, part in cache.slices(0, 1))


def test_graph_without_a_past_is_no_decoder(session):
    class Encoder:
        inputs = (TensorSpec(name="input_ids", dtype="int64"),)

    with pytest.raises(BundleError, match="no decoder"):
        kv_dtype(Encoder())


def test_engine_that_cannot_bind_is_named(session):
    class Plain:
        inputs = outputs = notes = ()

        def run(self, feeds):
            raise AssertionError

    with pytest.raises(EngineError, match="cannot share the KV cache"):
        Decoder(Plain(), KVCache(tiny.GENERATION, 1, 8, "float32"), tiny.VOCAB)
