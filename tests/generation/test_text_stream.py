from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.errors import InputError
from edge_sdk.runtime.generation.text_stream import LONGEST_CHARACTER, REPLACEMENT, TextStream
from tests.generation.tokenizers_for_tests import byte_level, sentence_piece

TOKENIZERS = pytest.mark.parametrize("make", [byte_level, sentence_piece])
WORDS = st.text(st.sampled_from("hello w▁.!é€漢😀👩‍🔧\n") | st.characters(codec="utf-8"))


def pieces(stream: TextStream, tokens: list[int]) -> list[str]:
    return [*(stream.push(token) for token in tokens), stream.flush()]


def streamed(tokenizer, tokens, **options) -> str:
    return "".join(pieces(TextStream(tokenizer, **options), tokens))


def byte_tokens(tokenizer, data: bytes) -> list[int]:
    """The tokens that stand for single bytes."""
    found = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in data]
    if None not in found:
        return found
    shown = [tokenizer.id_to_token(i) for i in range(256)]
    # The byte-level alphabet: printable bytes stand for themselves, the rest from U+0100 on.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    letter = {byte: chr(byte) for byte in printable}
    letter |= {byte: chr(256 + i) for i, byte in enumerate(rest)}
    return [shown.index(letter[byte]) for byte in data]


@TOKENIZERS
@given(text=WORDS)
def test_pieces_together_are_the_decoded_text(make, text):
    tokenizer = make()
    tokens = tokenizer.encode(text).ids
    assert streamed(tokenizer, tokens) == tokenizer.decode(tokens)


@TOKENIZERS
@given(text=WORDS, data=st.data())
def test_pieces_of_a_continued_text_are_its_rest(make, text, data):
    tokenizer = make()
    tokens = tokenizer.encode("hello " + text).ids
    cut = data.draw(st.integers(1, len(tokens)))
    head, rest = tokens[:cut], tokens[cut:]
    shown = tokenizer.decode(head)
    if not shown.endswith(REPLACEMENT):
        assert shown + streamed(tokenizer, rest, after=head) == tokenizer.decode(tokens)


@TOKENIZERS
@given(text=st.text(st.sampled_from("hé€😀"), min_size=1))
def test_no_piece_ends_within_a_character(make, text):
    tokenizer = make()
    stream = TextStream(tokenizer)
    shown = [stream.push(token) for token in byte_tokens(tokenizer, text.encode())]
    assert not any(REPLACEMENT in piece for piece in shown)
    assert [piece for piece in shown if piece] == list(text)


@TOKENIZERS
def test_unfinished_character_appears_at_the_end_as_the_tokenizer_shows_it(make):
    tokenizer = make()
    tokens = byte_tokens(tokenizer, "h😀".encode()[:-1])
    *before, last = pieces(TextStream(tokenizer), tokens)
    assert "".join(before) == "h"
    assert last == tokenizer.decode(tokens)[1:]
    assert set(last) == {REPLACEMENT}


@TOKENIZERS
def test_bytes_that_are_no_text_are_shown_before_they_pile_up(make):
    tokenizer = make()
    stream = TextStream(tokenizer)
    shown = [stream.push(token) for token in byte_tokens(tokenizer, b"\xff" * 40)]
    assert shown[LONGEST_CHARACTER - 1] == REPLACEMENT * LONGEST_CHARACTER
    assert "".join(shown) + stream.flush() == REPLACEMENT * 40


def test_work_per_token_does_not_grow_with_the_text():
    longest = 0

    class Counting:
        """The tokenizer, remembering how much it was asked to decode at once."""

        def __getattr__(self, name):
            return getattr(byte_level(), name)

        def decode(self, tokens):
            nonlocal longest
            longest = max(longest, len(tokens))
            return byte_level().decode(tokens)

    tokens = byte_level().encode("hello w😀漢" * 50).ids + byte_tokens(byte_level(), b"\xff" * 99)
    streamed(Counting(), tokens)
    assert 0 < longest <= 2 * LONGEST_CHARACTER


@TOKENIZERS
def test_special_and_unknown_tokens_are_never_shown_and_do_not_part_characters(make):
    tokenizer = make()
    end, unknown = tokenizer.token_to_id("</s>"), tokenizer.get_vocab_size() + 5
    first, *rest = byte_tokens(tokenizer, "é".encode())
    word = tokenizer.encode("hello w").ids
    tokens = [end, unknown, first, end, unknown, *rest, end, *word[-1:]]
    assert streamed(tokenizer, tokens) == "é w"


def test_sentence_piece_drops_only_the_space_at_the_beginning_of_a_text():
    tokenizer = sentence_piece()
    word = tokenizer.token_to_id("▁w")
    assert streamed(tokenizer, [word, word]) == "w w"
    assert streamed(tokenizer, [word], after=[word]) == " w"
    space = tokenizer.token_to_id("▁")
    assert streamed(tokenizer, [space, word]) == tokenizer.decode([space, word]) == " w"


@given(
    text=st.text("abc", max_size=30),
    stop=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
)
def test_text_ends_before_the_stop_string_that_is_complete_first(text, stop):
    stream = TextStream(byte_level(), stop)
    tokens = byte_level().encode(text).ids
    ends = [(text.find(word) + len(word), -len(word)) for word in stop if word in text]
    cut = sum(min(ends)) if ends else len(text)
    assert "".join(pieces(stream, tokens)) == text[:cut]
    assert stream.stopped is bool(ends)


def test_beginning_of_a_stop_string_is_kept_back_until_it_is_none():
    stream = TextStream(byte_level(), ["</end>"])
    shown = [stream.push(token) for token in byte_level().encode("a</en b").ids]
    assert shown == ["a", "", "", "", "", "</en ", "b"]


def test_nothing_follows_a_stop_string():
    stream = TextStream(byte_level(), ["lo"])
    tokens = byte_level().encode("hello w").ids
    assert pieces(stream, [*tokens, *tokens]) == ["hel", "", "", "", ""]


def test_beginning_of_a_stop_string_appears_when_the_text_ends_with_it():
    assert streamed(byte_level(), byte_level().encode("a</e").ids, stop=["</end>"]) == "a</e"


def test_stop_string_may_end_within_a_token():
    stream = TextStream(byte_level(), ["! he"])
    assert "".join(pieces(stream, byte_level().encode("w! hello").ids)) == "w"


def test_empty_stop_string_is_bad_input():
    with pytest.raises(InputError, match="stop: a stop string is empty"):
        TextStream(byte_level(), ["x", ""])
