from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from tokenizers import Tokenizer

from benchmarks.llm.contest import (
    Contestant,
    DiedError,
    Memory,
    Series,
    contest,
    prompt_of,
    running,
)
from benchmarks.llm.gguf_file import write_gguf
from benchmarks.llm.model import TINY, bfloat16, vocabulary, write
from benchmarks.llm.worker import Turn
from converters.source import open_source

pytestmark = pytest.mark.converts
MIB = 1 << 20


def echo(name: str, most: int = 1000) -> Contestant:
    return Contestant(name, Path(sys.executable), "tests.benchmarks.echo_worker", {"most": most})


def test_a_model_is_the_same_every_time_and_can_differ_in_one_layer(tmp_path):
    first = write(tmp_path / "first", TINY)
    again = write(tmp_path / "again", TINY)
    changed = write(tmp_path / "changed", TINY, changed_layer=1)
    for file in first.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes()
    before, after = open_source(first).weights, open_source(changed).weights
    differing = {n for n in before.names() if not np.array_equal(before.read(n), after.read(n))}
    assert differing == {name for name in before.names() if name.startswith("layers.1.")}


def test_bfloat16_rounds_to_nearest_even():
    halfway = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1.5, 3.14159], np.float32)
    found = (bfloat16(halfway).astype(np.uint32) << 16).view(np.float32)
    assert found.tolist() == [1.0, 1 + 2**-6, -1.5, 3.140625]


def test_the_tokenizer_has_the_wished_size_and_loses_nothing(tmp_path):
    file = write(tmp_path, TINY) / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    assert tokenizer.get_vocab_size() == TINY.vocab
    text = "set the boiler to 21.5 °C,  please 🙂\n"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    tokens, merges = vocabulary(49152)
    assert len(set(tokens)) == 49152
    made = set(tokens[: len(tokens) - len(merges)])
    for left, right in merges:  # each merge is of tokens that are there by then
        assert {left, right} <= made
        made.add(left + right)


def test_a_gguf_file_holds_the_same_weights(tmp_path):
    source = open_source(write(tmp_path / "folder", TINY))
    file = write_gguf(source, tmp_path / "model.gguf", GGMLQuantizationType.F32)
    found = open_source(file)
    assert found.weights.names() == source.weights.names()
    for name in source.weights.names():
        np.testing.assert_array_equal(found.weights.read(name), source.weights.read(name), name)
    assert found.architecture.heads == source.architecture.heads
    np.testing.assert_allclose(
        found.architecture.rope.inverse_frequencies,
        source.architecture.rope.inverse_frequencies,
        rtol=1e-5,
    )


def test_everyone_answers_every_prompt_and_the_first_round_does_not_count():
    prompts = [prompt_of(4, 100, number) for number in range(3)]
    with running([echo("a"), echo("b")]) as workers:
        found = contest(workers, prompts, 5)
    assert set(found) == {"a", "b"}
    for series in found.values():
        answers = [turn.tokens for turn in series.turns]
        assert answers == [list(range(p[-1], p[-1] + 5)) for p in prompts[1:]]


def test_prompts_differ_from_their_first_token_on():
    assert len({prompt_of(8, 1000, number)[0] for number in range(8)}) > 6
    assert prompt_of(8, 1000, 3) == prompt_of(8, 1000, 3)


def test_an_answer_that_ends_early_ends_the_contest():
    with pytest.raises(DiedError, match="3 tokens instead of 5"), running([echo("a", 3)]) as found:
        contest(found, [[1]], 5)


def test_best_and_median():
    turns = [Turn(ttft, 1.0, list(range(tokens))) for ttft, tokens in ((9, 3), (5, 5), (7, 11))]
    series = Series(turns)
    assert series.tokens_per_second == (10.0, 4.0)
    assert series.ttft_ms == (5, 7)


def test_memory_is_the_kernels_word():
    found = Memory.of(os.getpid())
    assert 10 * MIB < found.private < found.rss <= found.peak
    assert found.pss <= found.rss
