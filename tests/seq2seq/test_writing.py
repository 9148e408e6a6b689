"""An encoder-decoder model on a device: what it writes is what the source framework writes."""

from __future__ import annotations

import gc
import weakref

import msgspec
import numpy as np
import pytest

import edge_sdk
from edge_sdk.errors import DataError, InputError, MemoryLimitError
from tests.seq2seq.devices import DECODING, MEMORY, bundle
from tests.seq2seq.inputs import NEW_TOKENS, TEXTS, features, written


@pytest.fixture(scope="module")
def t5_bundle(tmp_path_factory):
    return bundle(tmp_path_factory.mktemp("t5"), "t5")


@pytest.fixture(scope="module")
def t5(t5_bundle):
    with edge_sdk.load(t5_bundle, "here") as model:
        yield model


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    with edge_sdk.load(bundle(tmp_path_factory.mktemp("whisper"), "whisper"), "here") as model:
        yield model


def answer(tokens: list[int], start: int) -> tuple[int, ...]:
    """What lies between the beginning of an output and its end."""
    return tuple(token for token in tokens[start:] if token != 1)


def test_text_is_what_the_source_framework_writes(t5):
    for text, tokens in zip(TEXTS, written("t5"), strict=True):
        completion = t5.generate(text, max_new_tokens=NEW_TOKENS)
        assert completion.read()
        assert completion.tokens == answer(tokens, 1)


def test_trained_model_translates(t5):
    completion = t5.generate("four four zero seven two")
    assert completion.read() == "4 4 0 7 2"
    assert completion.finish_reason == "stop"


def test_text_comes_in_pieces(t5):
    pieces = list(t5.generate("eight six one"))
    assert len(pieces) > 1
    assert "".join(pieces) == "8 6 1"


def test_outputs_that_overlap_do_not_disturb_each_other(t5):
    alone = [t5.generate(text).read() for text in TEXTS]
    together = [t5.generate(text) for text in TEXTS]
    for completion in together:
        next(completion)
    for completion in reversed(together):
        completion.read()
    assert [completion.text for completion in together] == alone


def test_more_outputs_than_places_wait_for_their_turn(t5_bundle):
    with edge_sdk.load(t5_bundle, "here", streams=1) as model:
        first, second = model.generate("one two three"), model.generate("four")
        assert second.read() == "4"
        assert first.read() == "1 2 3"


def test_server_steps_without_readers(t5):
    completion = t5.generate("nine")
    while t5.step():
        pass
    assert completion.take() == "9"


def test_limit_ends_output_and_says_so(t5):
    completion = t5.generate("four four zero", max_new_tokens=2)
    assert completion.read() == "4 4"
    assert completion.finish_reason == "length"


def test_stop_string_ends_output(t5):
    assert t5.generate("one two three four", stop="3").read() == "1 2 "


def test_model_s_own_limit_holds_where_nobody_says(tmp_path):
    decoding = msgspec.structs.replace(DECODING["t5"], max_length=3)
    with edge_sdk.load(bundle(tmp_path, "t5", decoding=decoding), "here") as model:
        assert model.generate("one two three four").read() == "1 2"
        assert model.generate("one two three four", max_new_tokens=9).read() == "1 2 3 4"


def test_end_that_is_forced_takes_the_last_place(tmp_path):
    decoding = msgspec.structs.replace(DECODING["t5"], max_length=4, forced_eos=True)
    with edge_sdk.load(bundle(tmp_path, "t5", decoding=decoding), "here") as model:
        completion = model.generate("one two three four")
        assert completion.read() == "1 2"
        assert completion.finish_reason == "length"
        assert model.generate("one two three four", max_new_tokens=4).read() == "1 2 3"


def test_token_that_is_forced_first_counts_as_written(tmp_path):
    decoding = msgspec.structs.replace(DECODING["t5"], start=(0, 5), forced=1)
    with edge_sdk.load(bundle(tmp_path, "t5", decoding=decoding), "here") as model:
        completion = model.generate("one two three four", max_new_tokens=3)
        completion.read()
        assert len(completion.tokens) == 2


def test_same_seed_samples_same_text(t5):
    hot = [t5.generate(TEXTS[3], temperature=3.0, seed=seed) for seed in (1, 1, 2)]
    one, again, other = (completion.read() for completion in hot)
    assert one == again != other


def test_run_takes_tokens_of_the_output_and_gives_their_logits(t5):
    completion = t5.generate(TEXTS[0])
    completion.read()
    ids = t5._runner._tokens(TEXTS[0])
    tokens = np.array([[0, *completion.tokens]])
    logits = t5.run({**ids, "decoder_input_ids": tokens})["logits"]
    assert logits[0].argmax(axis=1).tolist() == [*completion.tokens, 1]


def test_batch_of_inputs_is_refused(t5):
    ids = np.ones((2, 3), np.int64)
    with pytest.raises(DataError, match="holds 2 samples"):
        t5.generate({"input_ids": ids, "attention_mask": ids})


@pytest.mark.parametrize("prompt", [["a"], 3, [{"role": "user", "content": "hi"}]])
def test_what_is_no_text_is_refused(t5, prompt):
    with pytest.raises(DataError, match="expected a text"):
        t5.generate(prompt)


def test_long_text_is_cut(t5):
    assert t5._runner._tokens("one " * 100)["input_ids"].shape == (1, 16)
    assert t5._runner._tokens("one " * 100)["input_ids"][0, -1] == 1  # and still ends


def test_context_that_does_not_fit_is_shortened_then_refused(t5_bundle):
    past = 2 * MEMORY.kv_per_token  # in two buffers
    enough = MEMORY.peak + 64 * past
    with edge_sdk.load(t5_bundle, "here", enough) as model:
        assert model.context == 64
    with pytest.raises(MemoryLimitError, match="shortest KV cache"):
        edge_sdk.load(t5_bundle, "here", enough - past)


def test_input_that_does_not_fit_the_limit_is_refused(t5_bundle):
    limit = MEMORY.peak + 64 * 2 * MEMORY.kv_per_token
    with edge_sdk.load(t5_bundle, "here", limit) as model:
        assert model.generate("one").read() == "1"
        ids = np.ones((1, 4096), np.int64)
        with pytest.raises(MemoryLimitError, match="this input"):
            model.generate({"input_ids": ids, "attention_mask": ids})


def test_closed_model_lets_go_of_its_sessions(t5_bundle):
    model = edge_sdk.load(t5_bundle, "here")
    completion = model.generate("one two three")
    next(completion)
    sessions = [weakref.ref(session) for session in model._runner.sessions.values()]
    model.close()
    gc.collect()
    assert completion.read() == "1"  # what came before
    assert completion.finish_reason == "cancelled"
    assert [session() for session in sessions] == [None, None]
    with pytest.raises(InputError, match="closed"):
        model.generate("one")


def test_sound_is_written_in_the_language_that_is_told(whisper):
    expected = iter(written("whisper"))
    for sound in features():
        for language in ("en", "de", None):
            completion = whisper._runner.write(
                {"input_features": sound[None]}, language=language, max_new_tokens=NEW_TOKENS
            )
            completion.read()
            assert completion.tokens == answer(next(expected), 0)


def test_transcribe_takes_samples(whisper):
    clip = np.random.default_rng(1).normal(scale=0.1, size=3 * 16_000).astype(np.float32)
    assert (
        whisper.transcribe(clip, language="en").text == whisper.transcribe(clip, language="en").text
    )


def test_language_that_model_does_not_know_is_refused(whisper, t5):
    with pytest.raises(InputError, match="'fr' is none"):
        whisper._runner.write({"input_features": features()[:1]}, language="fr")
    with pytest.raises(InputError, match="not told any"):
        t5._runner.write(t5._runner._tokens("one"), task="translate")


def test_model_of_sound_reads_no_text(whisper):
    with pytest.raises(InputError, match="does not read text"):
        whisper.generate("one")
