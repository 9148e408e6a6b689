"""What travels compressed: documents and graphs, between us and our own server."""

from __future__ import annotations

import gzip
import random
import zlib
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.bundle import oci
from edge_sdk.errors import TransferError
from edge_sdk.transport.packing import pack, unpack
from edge_sdk.transport.registry import PIECE, RegistrySource
from edge_sdk.transport.registry_http import RegistryClient
from edge_sdk.transport.source import Reference
from tests.delivery.servers import Answer, serving
from tests.delivery.test_registry import BLOB, DATA, read

BOMB = gzip.compress(bytes(50_000_000), mtime=0)
TEXT = "".join(f"layer {number} of the graph\n" for number in range(5000)).encode()


@pytest.fixture
def source():
    source = RegistrySource(RegistryClient(lambda _: None, timeout=5))
    yield source
    source.close()


def at(server):
    return Reference.parse(f"{server.host}/digits:1.0.0")


def answer_of(body):
    return lambda _: Answer(body=body, headers={"Content-Encoding": "gzip"})


@given(st.binary(max_size=5000), st.integers(1, 700), st.integers(1, 300))
def test_every_byte_comes_out_again_and_few_at_a_time(data, size, largest):
    packed = gzip.compress(data, mtime=0)
    cut = [packed[begin : begin + size] for begin in range(0, len(packed), size)]
    pieces = list(unpack(cut, largest))
    assert b"".join(piece.data for piece in pieces) == data
    assert sum(piece.travelled for piece in pieces) == len(packed)
    assert max(len(piece.data) for piece in pieces) <= largest


def test_texts_are_packed_always_to_the_same():
    packed = pack(TEXT)
    assert packed is not None
    assert packed == pack(TEXT)
    assert len(packed) < len(TEXT) / 4
    assert gzip.decompress(packed) == TEXT


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_are_not_packed(bits):
    draw, most = random.Random(1), 2 ** (bits - 1) - 1
    levels = [max(-most, min(most, round(draw.gauss(0, most / 3)))) % 2**bits for _ in range(9999)]
    weights = bytes(levels if bits == 8 else (a << 4 | b for a, b in pairwise(levels)))
    assert pack(weights) is None


def test_nothing_is_not_packed():
    assert pack(b"") is None


def test_what_comes_compressed_is_counted_as_it_travelled(source):
    with serving(answer_of(gzip.compress(DATA))) as server:
        pieces = list(source.read(at(server), BLOB))
        assert server.asked[0].headers["accept-encoding"] == "gzip"
    assert b"".join(piece.data for piece in pieces) == DATA
    assert sum(piece.travelled for piece in pieces) == len(gzip.compress(DATA)) < len(DATA)


def test_a_range_is_asked_for_as_it_is(source):
    rest = Answer(206, DATA[1000:], {"Content-Range": f"bytes 1000-{len(DATA) - 1}/{len(DATA)}"})
    with serving(lambda _: rest) as server:
        assert read(source, at(server), BLOB, 1000) == DATA[1000:]
        assert server.asked[0].headers["accept-encoding"] == "identity"


def test_a_bomb_grows_no_further_than_its_reader_wants(source):
    with serving(answer_of(BOMB)) as server:
        pieces = list(islice(source.read(at(server), BLOB), 5))
        assert max(len(piece.data) for piece in pieces) == PIECE
        with pytest.raises(TransferError, match=f"more than {oci.MANIFEST_LIMIT} bytes"):
            source.resolve(at(server))


@pytest.mark.parametrize("body", [b"not gzip", gzip.compress(TEXT)[:40] + b"\xff" * 40])
def test_what_cannot_be_decompressed_broke_off(source, body):
    with pytest.raises(zlib.error):
        list(unpack([body], PIECE))
    with serving(answer_of(body)) as server, pytest.raises(TransferError, match="broke off") as e:
        list(source.read(at(server), BLOB))
    assert e.value.passing


def test_other_encodings_are_refused(source):
    answer = Answer(body=DATA, headers={"Content-Encoding": "br"})
    with serving(lambda _: answer) as server, pytest.raises(TransferError, match="'br' unasked"):
        list(source.read(at(server), BLOB))
