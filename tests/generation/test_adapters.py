from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

import edge_sdk
from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import Adapter, ArrayRef, TensorSpec
from edge_sdk.errors import BundleError, InputError, MemoryLimitError
from edge_sdk.runtime.generation.adapters import read_adapter
from edge_sdk.runtime.generation.decoder import Decoder
from edge_sdk.runtime.generation.kv import KVCache
from tests.generation import tiny
from tests.runtime.bundles import plan

SPECS = (
    TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence")),
    TensorSpec(name="lora.q.a", dtype="float32", shape=(4, "rank.q")),
    TensorSpec(name="lora.q.b", dtype="float32", shape=("rank.q", 6)),
    TensorSpec(name="lora.o.a", dtype="float32", shape=(6, "rank.o")),
    TensorSpec(name="lora.o.b", dtype="float32", shape=("rank.o", 4)),
)
PERSONAS = ("pirate", "terse")


@pytest.fixture
def read(tmp_path):
    def read(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        blobs = BlobStore(tmp_path)
        blob = blobs.put([array.tobytes() for array in arrays.values()])
        refs, end = {}, 0
        for name, array in arrays.items():
            refs[name] = ArrayRef(blob=blob, dtype=str(array.dtype), shape=array.shape, offset=end)
            end += array.nbytes
        return read_adapter(Adapter(name="pirate", arrays=refs), SPECS, blobs)

    return read


ONES = {"lora.q.a": np.ones((4, 2), "f4"), "lora.q.b": np.full((2, 6), 3, "f4")}


def test_arrays_are_mapped_from_their_file(read):
    arrays = read(ONES)
    for name, expected in ONES.items():
        assert isinstance(arrays[name], np.memmap)
        np.testing.assert_array_equal(arrays[name], expected)


def test_node_without_an_adapter_has_rank_0(read):
    arrays = read(ONES)
    assert arrays.keys() == {spec.name for spec in SPECS[1:]}
    assert arrays["lora.o.a"].shape == (6, 0)
    assert arrays["lora.o.b"].shape == (0, 4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lora.x.a": np.ones((4, 2), "f4")}, "lora.x.a is no input"),
        ({"input_ids": np.ones((4, 2), "i8")}, "input_ids is no input"),
        ({"lora.o.a": np.ones((6, 2), "f4")}, "lora.o.a and lora.o.b are not of one rank"),
        ({"lora.q.b": np.ones((3, 6), "f4")}, "not of one rank"),
        ({"lora.q.a": np.ones((5, 2), "f4")}, r"\[5, 2\] and does not fit .* \[4, rank.q\]"),
        ({"lora.q.a": np.ones(4, "f4")}, r"\[4\] and does not fit"),
        ({"lora.q.a": np.ones((4, 2), "f2")}, "float16 .* does not fit the graph: float32"),
    ],
)
def test_adapter_that_does_not_fit_is_refused(read, changed, message):
    with pytest.raises(BundleError, match=message) as error:
        read(ONES | changed)
    assert error.value.where == "adapter 'pirate'"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    files = {name: tiny.adapter(i) for i, name in enumerate(PERSONAS)}
    return tiny.bundle(tmp_path_factory.mktemp("personas") / "b", adapters=files)


def load(path, **settings):
    return edge_sdk.load(path, "here", threads=1, prepare=False, **settings)


def test_streams_with_different_adapters_run_together_as_if_alone(path):
    together = load(path)
    chosen = [None, *PERSONAS, None, "terse"]
    completions = [
        together.generate(f"hello {i}", max_new_tokens=20, adapter=name)
        for i, name in enumerate(chosen)
    ]
    for completion in completions:
        completion.read()
    for i, name in enumerate(chosen):
        alone = load(path, streams=1).generate(f"hello {i}", max_new_tokens=20, adapter=name)
        alone.read()
        assert completions[i].tokens == alone.tokens


def test_adapter_changes_the_answer_and_leaves_the_base_alone(path, tiny_bundle):
    model = load(path)
    answers = {
        name: model.generate("hello", max_new_tokens=20, adapter=name).read()
        for name in (None, *PERSONAS, None)
    }
    assert len(set(answers.values())) == 3
    assert answers[None] == load(tiny_bundle).generate("hello", max_new_tokens=20).read()


def test_adapters_share_no_cached_prompts(path):
    model = load(path)
    model.generate("hello", max_new_tokens=2).read()
    other = model.generate("hello", max_new_tokens=2, adapter="pirate")
    other.read()
    again = model.generate("hello", max_new_tokens=2, adapter="pirate")
    again.read()
    assert (other.stats.cached_tokens, again.stats.cached_tokens) == (0, 22)


def test_row_that_moves_keeps_its_adapter(path):
    model = load(path)
    names, limits = (None, "pirate", None), (90, 2, 90)
    completions = [
        model.generate(f"hello {i}", max_new_tokens=limit, adapter=name)
        for i, (name, limit) in enumerate(zip(names, limits, strict=True))
    ]
    while not (completions[1].finish_reason and completions[2].stats.new_tokens):
        model._runner.scheduler.step()
    model._runner.scheduler.step()
    assert [c._stream.row for c in completions] == [0, 1, 1]
    again = model.generate("hello 1", max_new_tokens=2, adapter="pirate")
    again.read()
    assert again.stats.cached_tokens == again.stats.prompt_tokens - 2
    assert again.tokens == completions[1].tokens


def test_adapter_equals_the_delta_it_stands_for(path):
    """One graph with the adapter's arrays against the same arrays split over twice the rank."""
    model = load(path)
    session = model._runner.scheduler._decoders.of("pirate").session
    arrays = tiny.adapter(0)
    doubled = {
        name: np.concatenate([array, array], axis=1 if name.endswith("a") else 0)
        * (1 if name.endswith("a") else np.float32(0.5))
        for name, array in arrays.items()
    }
    logits = []
    for given in (arrays, doubled):
        cache = KVCache(tiny.GENERATION, 1, 16, "float32")
        decoder = Decoder(session, cache, tiny.VOCAB, given)
        logits.append(decoder.logits(list(range(16))))
    np.testing.assert_allclose(logits[0], logits[1], rtol=0, atol=1e-4)


def test_unknown_adapter_lists_those_there_are(path):
    with pytest.raises(InputError, match="pirate, terse"):
        load(path).generate("hello", adapter="parrot")


def test_broken_adapter_fails_its_own_stream_only(tmp_path):
    files = {"broken": {"lora.x.a": np.ones((4, 2), "f4")}}
    model = load(tiny.bundle(tmp_path / "b", adapters=files))
    bad = model.generate("hello", max_new_tokens=4, adapter="broken")
    good = model.generate("hello", max_new_tokens=4)
    with pytest.raises(BundleError, match=r"lora\.x\.a is no input"):
        bad.read()
    good.read()
    assert good.finish_reason == "length"


def test_graph_of_the_adapters_is_opened_only_where_the_limit_allows(path):
    room = 128 * tiny.KV_PER_TOKEN
    model = load(path, memory_limit=plan().peak + room)
    assert model.generate("hello", max_new_tokens=2).read()
    with pytest.raises(MemoryLimitError, match="one more session"):
        model.generate("hello", max_new_tokens=2, adapter="pirate").read()
