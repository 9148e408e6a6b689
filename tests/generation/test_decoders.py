from __future__ import annotations

import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.errors import MemoryLimitError
from edge_sdk.runtime.engine import SessionOptions, find_engine
from edge_sdk.runtime.generation import decoders
from edge_sdk.runtime.generation.decoders import Decoders
from edge_sdk.runtime.generation.kv import KVCache
from tests.generation import tiny


class Neighbour:
    """Stands for busy and free cores."""

    wanted = 2

    def __init__(self, most: int) -> None:
        assert most == 2

    def threads(self) -> int:
        return Neighbour.wanted

    def took(self, threads: int, seconds: float) -> None:
        self.last = (threads, seconds)


@pytest.fixture
def found(tiny_bundle, monkeypatch):
    """Makes decoders for two threads, and the list of sessions they open."""
    monkeypatch.setattr(decoders, "Cores", Neighbour)
    monkeypatch.setattr(Neighbour, "wanted", 2)
    variant = open_bundle(tiny_bundle).variants[0]
    graph = variant.blobs.path(variant.record.graphs[0].parts[0].digest)
    opened: list[int] = []

    def make(shares: bool, room: int = 9) -> tuple[Decoders, list[int]]:
        def open_session(name: str, threads: int):
            if len(opened) == room:
                raise MemoryLimitError("no room")
            opened.append(threads)
            session = find_engine("onnx").open(graph, SessionOptions(threads=threads))
            session.shares_weights = shares
            return session

        cache = KVCache(tiny.GENERATION, 1, 128, "float32")
        return Decoders(open_session, "main", cache, tiny.VOCAB, 2, {}, variant.blobs), opened

    return make


def test_busy_core_gives_a_session_with_fewer_threads_and_back(found):
    some, opened = found(shares=True)
    both = some.of(None)
    Neighbour.wanted = 1
    one = some.of(None)
    Neighbour.wanted = 2
    assert some.of(None) is both is not one
    assert opened == [2, 1]


def test_time_of_a_token_is_noted_with_the_threads_it_took(found):
    some, _ = found(shares=True)
    Neighbour.wanted = 1
    some.of(None)
    some.took(0.5)
    assert some._cores.last == (1, 0.5)


def test_sessions_continue_each_others_cache_to_the_bit(found):
    some, _ = found(shares=True)
    tokens = list(range(40))
    expected = some.of(None).logits(tokens)
    some.of(None).prefill(0, tokens[:20], 0)
    Neighbour.wanted = 1
    last = some.of(None).prefill(0, tokens[20:], 20)
    assert (last == expected[-1]).all()


def test_session_that_copies_its_weights_stays_the_only_one(found):
    some, opened = found(shares=False)
    Neighbour.wanted = 1
    some.of(None)
    assert opened == [2]


def test_without_room_for_another_session_the_first_goes_on(found):
    some, opened = found(shares=True, room=1)
    both = some.of(None)
    Neighbour.wanted = 1
    assert some.of(None) is both
    assert some.of(None) is both
    assert opened == [2]
