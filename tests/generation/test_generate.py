from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

import edge_sdk
from edge_sdk.bundle import record as rec
from edge_sdk.errors import BundleError, DataError, InputError, MemoryLimitError
from edge_sdk.runtime.generation.chat_template import Message
from tests.generation import tiny
from tests.runtime import onnx_bytes as ob
from tests.runtime.bundles import linear, plan

INT8_KV = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 27)
HELLO = [{"role": "user", "content": "hello"}]


def test_pieces_are_the_text_of_the_tokens(load):
    model = load()
    completion = model.generate("hello", max_new_tokens=30)
    pieces = list(completion)
    assert "".join(pieces) == completion.text
    assert completion.text == model._runner.tokenizer.decode(list(completion.tokens))
    assert len(pieces) > 5


def test_prompt_text_is_a_users_turn(load):
    model = load()
    rendered = "<|start|>user\nhello<|end|>\n<|start|>assistant\n"
    same = [
        model.generate("hello", max_new_tokens=8),
        model.generate(HELLO, max_new_tokens=8),
        model.generate([Message("user", "hello")], max_new_tokens=8),
        model.generate(rendered, raw=True, max_new_tokens=8),
        model.generate(model._runner.encode(rendered), max_new_tokens=8),
    ]
    for completion in same:
        completion.read()
    assert len({completion.tokens for completion in same}) == 1
    assert {completion.stats.prompt_tokens for completion in same} == {24}


def test_raw_prompt_begins_with_bos_where_the_model_wants_it(tmp_path):
    generation = rec.Generation(
        **{
            **{f: getattr(tiny.GENERATION, f) for f in tiny.GENERATION.__struct_fields__},
            "bos": 256,
            "add_bos": True,
        }
    )
    path = tiny.bundle(tmp_path / "b", generation=generation)
    model = edge_sdk.load(path, "here", threads=1)
    given = model.generate("hi", raw=True, max_new_tokens=4)
    assert given.stats.prompt_tokens == 3
    tokens = model.generate([256, ord("h"), ord("i")], max_new_tokens=4)
    assert tokens.read() == given.read()


def test_same_seed_same_text(load):
    model = load()
    drawn = [
        model.generate("hello", max_new_tokens=20, temperature=2.0, seed=seed).read()
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_stop_string_ends_the_text_before_it(load):
    model = load()
    whole = model.generate("hello", max_new_tokens=20).read()
    stop = whole[3:5]
    completion = model.generate("hello", max_new_tokens=20, stop=stop)
    assert completion.read() == whole[: whole.index(stop)]
    assert completion.finish_reason == "stop"
    assert completion.stats.new_tokens < 20


def test_stop_token_of_the_request(load):
    model = load()
    tokens = model.generate("hello", max_new_tokens=20)
    tokens.read()
    stop = tokens.tokens[1]
    completion = model.generate("hello", max_new_tokens=20, stop_tokens=[stop])
    completion.read()
    assert completion.finish_reason == "stop"
    assert completion.tokens == tokens.tokens[: tokens.tokens.index(stop)]


def test_steps_compute_all_that_runs_without_a_reader(load):
    model = load()
    completions = [model.generate(f"hello {i}", max_new_tokens=5) for i in range(6)]
    while model.step():
        pass
    assert {completion.stats.new_tokens for completion in completions} == {5}
    assert all(len(completion.read()) for completion in completions)


def test_full_context_ends_with_length(load):
    completion = load(context=40).generate("hello")
    completion.read()
    assert completion.finish_reason == "length"
    assert completion.stats.prompt_tokens + completion.stats.new_tokens == 40


def test_prompt_longer_than_the_context_is_refused_with_numbers(load):
    model = load(context=40)
    with pytest.raises(DataError, match="prompt has 59 tokens; the context of 40"):
        model.generate("h" * 40)
    with pytest.raises(DataError, match="prompt has 40 tokens"):
        model.generate(list(range(40)))
    assert model.generate(list(range(39))).read()


def test_empty_prompt_is_refused(load):
    with pytest.raises(DataError, match="empty"):
        load().generate("", raw=True)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"adapter": "pirate"}, "adapter"),
        ({"stop": ""}, "stop"),
    ],
)
def test_wrong_setting_is_named(load, settings, field):
    with pytest.raises(InputError) as error:
        load().generate("hello", **settings)
    assert error.value.where == field


def test_wrong_message_is_refused(load):
    with pytest.raises(DataError, match="not a message"):
        load().generate([{"role": "user"}])
    with pytest.raises(DataError, match="300 is no token"):
        load().generate([1, 300])


def test_logits_are_those_that_generation_draws_from(load):
    model = load()
    completion = model.generate(HELLO, max_new_tokens=20)
    completion.read()
    prompt = model._runner.encode("<|start|>user\nhello<|end|>\n<|start|>assistant\n")
    logits = model.logits([*prompt, *completion.tokens])
    assert logits.shape == (44, tiny.VOCAB)
    assert tuple(logits[23:-1].argmax(axis=1)) == completion.tokens


def test_run_takes_arrays_of_tokens(load):
    model = load()
    ids = np.random.default_rng(0).integers(0, 256, (2, 70))
    logits = model.run({"input_ids": ids})["logits"]
    assert logits.shape == (2, 70, tiny.VOCAB)
    assert np.array_equal(logits[1], model.logits(ids[1].tolist()))
    assert [spec.name for spec in model.inputs] == ["input_ids"]
    assert [spec.name for spec in model.outputs] == ["logits"]
    with pytest.raises(DataError, match="999 is no token"):
        model.run({"input_ids": [[999]]})
    with pytest.raises(DataError, match="129 tokens, the model's context is 128"):
        model.logits([1] * 129)


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"max_new_tokens": 1.5}, "max_new_tokens"),
        ({"stop": None}, "stop"),
        ({"stop_tokens": ["end"]}, "stop_tokens"),
    ],
)
def test_what_is_of_another_type_is_named(load, given, where):
    with pytest.raises(InputError) as caught:
        load().generate(**{"prompt": "hello", **given})
    assert caught.value.where == where


@pytest.mark.parametrize("tokens", [[1.5], ["a"], None, 5])
def test_logits_of_what_are_no_tokens(load, tokens):
    with pytest.raises(DataError) as caught:
        load().logits(tokens)
    assert caught.value.where == "tokens"


def test_stats_say_what_was_cached(load):
    model = load()
    model.generate("hello", max_new_tokens=4).read()
    completion = model.generate("hello", max_new_tokens=4)
    assert completion.stats.ttft_ms is None
    completion.read()
    stats = completion.stats
    assert (stats.prompt_tokens, stats.cached_tokens, stats.new_tokens) == (24, 22, 4)
    assert stats.ttft_ms is not None
    assert stats.tokens_per_second is not None


def test_memory_limit_shortens_the_context_and_says_so(load):
    room = 70 * tiny.KV_PER_TOKEN
    model = load(memory_limit=plan().peak + room)
    assert model._runner.plan.capacity == 70
    assert model.notes == ("the memory limit leaves a context of 70 tokens, 128 were wished",)
    with pytest.raises(DataError, match="context of 70"):
        model.generate("h" * 100)


def test_memory_limit_decides_how_many_streams_there_are(load):
    room = 128 * tiny.KV_PER_TOKEN
    assert load()._runner.plan.rows == 4
    assert load(memory_limit=plan().peak + 3 * room)._runner.plan.rows == 2
    assert load(memory_limit=plan().peak + room, streams=2)._runner.plan.capacity == 64


def test_memory_limit_that_leaves_no_context_refuses(load):
    with pytest.raises(MemoryLimitError, match="predicted not to fit"):
        load(memory_limit=plan().peak + 1000)


def test_encoder_does_not_generate(tmp_path):
    model = edge_sdk.load(linear(tmp_path / "b"), "here")
    with pytest.raises(InputError, match="does not generate text"):
        model.generate("hello")
    with pytest.raises(InputError, match="does not generate text"):
        model.logits([1])
    with pytest.raises(InputError, match="does not generate text"):
        model.step()


def test_dialogue_model_does_not_embed(load):
    with pytest.raises(InputError, match="cannot embed texts") as caught:
        load().embed("hello")
    assert "generate()" in str(caught.value.remedy)


def test_missing_tokenizer_is_named(tmp_path):
    model = edge_sdk.load(tiny.bundle(tmp_path / "b", files=()), "here", threads=1)
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        model.generate("hello")


def test_self_test_runs_the_cases_of_the_open_graph_only(tmp_path):
    """A variant has golden cases for each of its KV caches, and one is in use."""
    path = tiny.bundle(tmp_path / "b", kv8=True, golden=True)
    assert edge_sdk.load(path, "here", threads=1).self_test().cases == 1


def test_engine_too_old_for_int8_kv_gets_a_shorter_context(tmp_path, monkeypatch):
    build = tiny.Graph._build

    def newer(graph: tiny.Graph) -> None:
        build(graph)
        if graph._kv8:
            graph._nodes.append(ob.node("OfALaterVersion", ["normed"], ["unused"]))

    monkeypatch.setattr(tiny.Graph, "_build", newer)
    limit = plan().peak + 128 * tiny.KV_PER_TOKEN - 1
    path = tiny.bundle(tmp_path / "b", kv8=True)
    model = edge_sdk.load(path, "here", memory_limit=limit, streams=1, threads=1)
    assert model._runner.plan.kv == "float32"
    assert 64 <= model.context < 128
    assert any("leaves a context of" in note for note in model.notes)
    assert model.generate("hello", max_new_tokens=3).read()


@pytest.mark.skipif(not INT8_KV, reason="int8 KV on CPUs needs onnxruntime 1.27")
def test_int8_kv_is_used_where_the_limit_asks_for_it(tmp_path):
    path = tiny.bundle(tmp_path / "b", kv8=True)
    room = 128 * tiny.KV_PER_TOKEN
    wide = edge_sdk.load(path, "here", memory_limit=plan().peak + room, streams=1, threads=1)
    lean = edge_sdk.load(path, "here", memory_limit=plan().peak + room - 1, streams=1, threads=1)
    assert (wide._runner.plan.kv, lean._runner.plan.kv) == ("float32", "int8")
    assert lean._runner.plan.capacity == 128
    tokens = list(range(60))
    assert np.abs(wide.logits(tokens) - lean.logits(tokens)).max() < 1  # of logits up to 6
    both = [m.generate("hello", max_new_tokens=3).read() for m in (wide, lean)]
    assert both[0] == both[1]
