"""A closed model computes nothing any more, and keeps nothing."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from edge_sdk.errors import InputError

WAIT = 30  # seconds until a test that hangs fails


def test_completions_end_as_cancelled(load):
    model = load()
    running, waiting = model.generate("hello"), model.generate("hello")
    shown = next(running)
    model.close()
    assert running.read().startswith(shown)
    assert waiting.read() == ""
    assert (running.finish_reason, waiting.finish_reason) == ("cancelled", "cancelled")


def test_further_calls_are_errors(load):
    with load() as model:
        pass
    model.close()  # a second time does nothing
    for call in (
        lambda: model.generate("hello"),
        lambda: model.step(),
        lambda: model.logits([1]),
        lambda: model.run({"input_ids": [[1]]}),
        lambda: model.self_test(),
        lambda: model.context,
    ):
        with pytest.raises(InputError, match="the model was closed"):
            call()


@pytest.mark.parametrize("adapter", [None, "pirate"])
def test_sessions_and_cache_are_freed_though_a_completion_is_kept(tmp_path, adapter):
    import edge_sdk
    from tests.generation import tiny

    bundle = tiny.bundle(tmp_path / "bundle", adapters={"pirate": tiny.adapter(0)})
    gc.disable()
    try:
        model = edge_sdk.load(bundle, "here", threads=1, prepare=False)
        completion = model.generate("hello", max_new_tokens=5, adapter=adapter)
        completion.read()
        decoders = model._generator.scheduler._decoders
        kept = [
            weakref.ref(model._generator._session),
            weakref.ref(decoders.of(adapter).session),
            weakref.ref(next(array for _, array in decoders.cache.slices(0, 1)).base),
        ]
        assert all(reference() is not None for reference in kept)
        model.close()
        assert [reference() for reference in kept] == [None] * len(kept)
    finally:
        gc.enable()
    assert completion.text


def test_a_step_that_is_running_is_waited_for(load, monkeypatch):
    model = load()
    completion = model.generate("hello")
    decoder = model._generator.scheduler._decoders.of(None)
    prefill, entered, go_on = decoder.prefill, threading.Event(), threading.Event()

    def slowly(*args):
        entered.set()
        assert go_on.wait(WAIT)
        return prefill(*args)

    monkeypatch.setattr(decoder, "prefill", slowly)
    stepping = threading.Thread(target=model.step)
    stepping.start()
    assert entered.wait(WAIT)
    closing = threading.Thread(target=model.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    go_on.set()
    closing.join(WAIT)
    stepping.join(WAIT)
    assert not closing.is_alive()
    assert completion.finish_reason == "cancelled"


def test_text_is_taken_without_computing(load):
    model = load()
    completion = model.generate("hello", max_new_tokens=8)
    assert completion.take() == ""
    assert not completion.ended
    while model.step():
        pass
    assert completion.ended
    text = completion.take()
    assert text
    assert completion.take() == ""
    assert completion.text == text == load().generate("hello", max_new_tokens=8).read()
