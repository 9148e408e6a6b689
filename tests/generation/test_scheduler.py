"""Streams over the tiny decoder, on token level."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edge_sdk.bundle.record import Sampling
from edge_sdk.errors import EngineError
from edge_sdk.runtime.generation.completion import Completion
from edge_sdk.runtime.generation.sampling import Sampler
from edge_sdk.runtime.generation.stream import Request

WAIT = 30  # seconds until a test that hangs fails


class Numbers:
    """Text of tokens: the numbers themselves."""

    stopped = False

    def push(self, token: int) -> str:
        return f"{token} "

    def flush(self) -> str:
        return ""


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, 256, length).tolist())


def request(tokens: tuple[int, ...], limit: int = 20, **fields) -> Request:
    sampler = fields.pop("sampler", None) or Sampler(Sampling(), tokens)
    return Request(prompt=tokens, sampler=sampler, text=Numbers(), limit=limit, **fields)


@pytest.fixture
def scheduler(load):
    return load(streams=4)._runner.scheduler


@pytest.fixture
def alone(load):
    """The tokens a prompt gives with nothing beside it and nothing cached."""

    def alone(tokens: tuple[int, ...], limit: int = 20) -> tuple[int, ...]:
        completion = Completion(load(streams=1)._runner.scheduler, request(tokens, limit))
        completion.read()
        return completion.tokens

    return alone


PROMPTS = [prompt(length, length) for length in (5, 90, 17, 1, 64, 2)]


def test_streams_together_give_what_each_gives_alone(scheduler, alone):
    completions = [Completion(scheduler, request(tokens)) for tokens in PROMPTS]
    for completion in completions:
        completion.read()
    assert [c.tokens for c in completions] == [alone(tokens) for tokens in PROMPTS]
    assert all(c.finish_reason == "length" for c in completions)


def test_streams_that_join_and_leave_at_any_time_disturb_nobody(scheduler, alone):
    limits = [3, 30, 8, 14, 22, 5]
    completions = []
    for tokens, limit in zip(PROMPTS, limits, strict=True):
        completions.append(Completion(scheduler, request(tokens, limit)))
        for _ in range(4):
            scheduler.step()
    while scheduler.step():
        pass
    for completion, tokens, limit in zip(completions, PROMPTS, limits, strict=True):
        assert completion.tokens == alone(tokens, limit)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("length", [64, 65, 127])
def test_prompt_in_chunks_leaves_the_bits_of_a_prompt_in_one(scheduler, length, seed):
    tokens = prompt(length, seed)
    Completion(scheduler, request(tokens, 1)).read()
    decoder = scheduler._decoders.of(None)
    decoder.prefill(3, tokens, 0)
    rows = zip(decoder.cache.slices(0, 1), decoder.cache.slices(3, 1), strict=True)
    for (_, chunked), (_, whole) in rows:
        assert np.array_equal(chunked[:, :, :length], whole[:, :, :length])


def test_one_reader_drives_all(scheduler):
    first, second = (Completion(scheduler, request(prompt(1, seed), 10)) for seed in (0, 1))
    first.read()
    assert second.stats.new_tokens == 10


def test_threads_read_their_own_streams(load, alone):
    scheduler = load(streams=3)._runner.scheduler
    prompts = [prompt(10 + i, i) for i in range(8)]

    def read(tokens: tuple[int, ...]) -> tuple[int, ...]:
        completion = Completion(scheduler, request(tokens, 40))
        completion.read()
        return completion.tokens

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, prompts, timeout=WAIT))
    assert found == [alone(tokens, 40) for tokens in prompts]


def test_server_thread_may_drive(scheduler):
    completions = [Completion(scheduler, request(tokens, 10)) for tokens in PROMPTS]
    done = threading.Event()

    def serve() -> None:
        while scheduler.step():
            pass
        done.set()

    threading.Thread(target=serve, daemon=True).start()
    assert done.wait(WAIT)
    assert all(c.stats.new_tokens == 10 for c in completions)


def test_cancel_from_another_thread_ends_within_a_token(scheduler):
    completion = Completion(scheduler, request(PROMPTS[0], 100))
    next(completion)
    thread = threading.Thread(target=completion.cancel)
    thread.start()
    thread.join(WAIT)
    drawn = completion.stats.new_tokens
    assert list(completion) == []
    assert completion.stats.new_tokens == drawn
    assert completion.finish_reason == "cancelled"


def test_token_that_is_drawn_when_the_cancel_comes_is_dropped(scheduler):
    class Cancels(Sampler):
        def next(self, logits):
            token = super().next(logits)
            if completion.stats.new_tokens == 3:
                completion.cancel()
            return token

    completion = Completion(scheduler, request(PROMPTS[0], sampler=Cancels(Sampling())))
    assert completion.read().split() == [str(token) for token in completion.tokens]
    assert completion.stats.new_tokens == 3


def test_cancelled_stream_frees_its_row(load):
    scheduler = load(streams=1)._runner.scheduler
    first = Completion(scheduler, request(PROMPTS[0], 100))
    waiting = Completion(scheduler, request(PROMPTS[2], 5))
    next(first)
    assert waiting.stats.new_tokens == 0
    first.cancel()
    waiting.read()
    assert waiting.finish_reason == "length"


def test_cancelled_while_waiting_never_runs(load):
    scheduler = load(streams=1)._runner.scheduler
    first = Completion(scheduler, request(PROMPTS[0], 5))
    waiting = Completion(scheduler, request(PROMPTS[2], 5))
    waiting.cancel()
    first.read()
    assert waiting.read() == ""
    assert (waiting.finish_reason, waiting.tokens) == ("cancelled", ())
    Completion(scheduler, request(PROMPTS[2], 5)).read()
    assert waiting._stream.row == -1


def test_forgotten_completion_frees_its_row(load):
    scheduler = load(streams=1)._runner.scheduler
    forgotten = Completion(scheduler, request(PROMPTS[0], 100))
    next(forgotten)
    stream = forgotten._stream
    del forgotten
    assert stream.finish_reason == "cancelled"
    after = Completion(scheduler, request(PROMPTS[2], 5))
    after.read()
    assert after.stats.new_tokens == 5
    assert not scheduler.step()


def test_leaving_the_with_block_cancels(scheduler):
    with Completion(scheduler, request(PROMPTS[0], 100)) as completion:
        next(completion)
    assert completion.finish_reason == "cancelled"
    assert list(completion) == []


def test_stop_token_ends_and_is_no_part(scheduler, alone):
    tokens = alone(PROMPTS[0])
    stop = tokens[4]
    completion = Completion(scheduler, request(PROMPTS[0], stop_tokens=frozenset([stop])))
    completion.read()
    assert completion.finish_reason == "stop"
    assert completion.tokens == tokens[: tokens.index(stop)]


def test_running_streams_go_on_while_a_long_prompt_is_computed(scheduler):
    running = Completion(scheduler, request(PROMPTS[0], 100))
    next(running)
    long = Completion(scheduler, request(prompt(90, 7), 5))
    before = running.stats.new_tokens
    while not long.stats.new_tokens:
        scheduler.step()
    assert running.stats.new_tokens - before >= 90 // 64 + 1


def test_short_prompt_does_not_wait_for_a_long_one(scheduler):
    long = Completion(scheduler, request(prompt(120, 7), 5))
    short = Completion(scheduler, request(prompt(20, 8), 5))
    next(short)
    assert long.stats.new_tokens == 0
    long.read()
    assert long.finish_reason == "length"


def test_gap_between_rows_is_closed_and_both_rows_stay_cached(scheduler, alone):
    prompts = [prompt(30 + i, 60 + i) for i in range(3)]
    limits = (90, 3, 90)
    completions = [
        Completion(scheduler, request(tokens, limit))
        for tokens, limit in zip(prompts, limits, strict=True)
    ]
    while not (completions[1].finish_reason and completions[2].stats.new_tokens):
        scheduler.step()
    scheduler.step()
    assert [c._stream.row for c in completions] == [0, 1, 1]
    again = Completion(scheduler, request(prompts[1], 3))
    for completion in (*completions, again):
        completion.read()
    assert again.stats.cached_tokens == len(prompts[1]) - 2
    assert again.tokens == completions[1].tokens
    assert completions[2].tokens == alone(prompts[2], 90)


def test_interrupted_move_of_a_row_corrupts_nothing(scheduler, alone, monkeypatch):
    prompts = [prompt(30 + i, 60 + i) for i in range(3)]
    completions = [
        Completion(scheduler, request(tokens, limit))
        for tokens, limit in zip(prompts, (90, 3, 90), strict=True)
    ]
    cache = scheduler._decoders.cache
    swap = type(cache).swap

    def interrupted(one: int, other: int, tokens: int) -> None:
        swap(cache, one, other, tokens // 2)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "swap", interrupted)
    with pytest.raises(KeyboardInterrupt):
        while scheduler.step():
            pass
    again = Completion(scheduler, request(prompts[1], 3))
    for completion in (*completions, again):
        completion.read()
    assert completions[2].tokens == alone(prompts[2], 90)
    assert again.tokens == alone(prompts[1], 3)


def test_sampler_that_fails_ends_its_own_stream_only(scheduler, alone):
    class Fails:
        def next(self, logits):
            raise EngineError("nan", where="logits")

    bad = Completion(scheduler, request(PROMPTS[2], sampler=Fails()))
    good = Completion(scheduler, request(PROMPTS[0]))
    with pytest.raises(EngineError, match="nan"):
        bad.read()
    good.read()
    assert good.tokens == alone(PROMPTS[0])
    assert bad.finish_reason is None


def test_engine_failure_reaches_every_reader_and_the_next_request_works(
    scheduler, alone, monkeypatch
):
    completions = [Completion(scheduler, request(tokens)) for tokens in PROMPTS[:2]]
    for completion in completions:
        next(completion)
    fired = []

    def fail(*args):
        fired.append(args)
        raise EngineError("out of order")

    with monkeypatch.context() as broken:
        broken.setattr(scheduler._decoders.of(None), "decode", fail)
        for completion in completions:
            with pytest.raises(EngineError, match="out of order"):
                completion.read()
    assert len(fired) == 1
    after = Completion(scheduler, request(PROMPTS[1]))
    after.read()
    assert after.tokens == alone(PROMPTS[1])


def test_interrupted_step_loses_no_token(scheduler, alone):
    """An interrupt (Ctrl-C) between a call of the graph and the notes about it."""

    class Interrupts(Sampler):
        calls = 0

        def next(self, logits):
            Interrupts.calls += 1
            if Interrupts.calls in (1, 3):
                raise KeyboardInterrupt
            return super().next(logits)

    tokens = PROMPTS[1]
    other = Completion(scheduler, request(PROMPTS[0]))
    completion = Completion(scheduler, request(tokens, sampler=Interrupts(Sampling(), tokens)))
    interrupts = 0
    while not completion.finish_reason:
        try:
            scheduler.step()
        except KeyboardInterrupt:
            interrupts += 1
    assert interrupts == 2
    assert completion.tokens == alone(tokens)
    other.read()
    assert other.tokens == alone(PROMPTS[0])


def test_prompt_that_was_computed_before_is_not_computed_again(scheduler, alone):
    tokens = PROMPTS[1]
    first, second = (Completion(scheduler, request(tokens)) for _ in range(2))
    first.read()
    third = Completion(scheduler, request(tokens))
    second.read()
    third.read()
    assert (first.stats.cached_tokens, third.stats.cached_tokens) == (0, len(tokens) - 2)
    assert {c.tokens for c in (first, second, third)} == {alone(tokens)}


def test_system_prompt_is_shared_between_conversations(load, alone):
    scheduler = load(streams=2)._runner.scheduler
    system = prompt(40, 3)
    for seed in range(5):
        tokens = system + prompt(6, 50 + seed)
        completion = Completion(scheduler, request(tokens, 8))
        completion.read()
        assert completion.stats.cached_tokens == (len(system) if seed else 0)
        assert completion.tokens == alone(tokens, 8)
