"""Entities, answers and letters are those of transformers' pipelines, on the same logits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.runtime.scores import softmax
from edge_sdk.runtime.steps import Ctc, Entities, Span
from edge_sdk.runtime.tasks.entities import entities, without_overlap
from edge_sdk.runtime.tasks.spans import Window, best_answers
from edge_sdk.runtime.tasks.speech import decode
from edge_sdk.runtime.text import PairEncoder, TextEncoder
from tests.runtime.reference.make_texts import CONTEXT, LABELS, STRIDE, WINDOW

FOLDER = Path(__file__).with_name("reference")
CASES = json.loads((FOLDER / "texts.json").read_text())
TOKENIZERS = ("word-pieces", "byte-pairs")


def tokenizer(name: str) -> bytes:
    return (FOLDER / f"{name}.json").read_bytes()


def found_entities(text, encodings, windows, encoder, aggregation):
    step = Entities(output="y", names=tuple(LABELS), aggregation=aggregation)
    found = []
    for encoding, logits in zip(encodings, windows, strict=True):
        scores = softmax(np.float32(logits))
        found += entities(text, encoding, scores, step, encoder.marks_subwords)
    return found


def same(found, expected):
    assert [(e.label, e.start, e.end) for e in found] == [(e[0], *e[2:]) for e in expected]
    scores = [e[1] for e in expected]
    np.testing.assert_allclose([e.score for e in found], scores, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_entities_are_those_of_the_pipeline(name, aggregation):
    encoder = TextEncoder(tokenizer(name), 512, name)
    for case in CASES[name]["tags"][:-1]:
        [batch] = encoder.batches([case["text"]], 1)
        same(
            found_entities(case["text"], batch.encodings, [case["logits"]], encoder, aggregation),
            case[aggregation],
        )


@pytest.mark.parametrize("name", TOKENIZERS)
def test_entities_of_overlapping_windows_are_those_of_the_pipeline(name):
    case = CASES[name]["tags"][-1]
    encoder = TextEncoder(tokenizer(name), WINDOW, name, STRIDE)
    batches = encoder.batches([CONTEXT], 1, windows=True)
    encodings = [batch.encodings[0] for batch in batches]
    encodings.sort(key=lambda encoding: encoding.offsets[1])  # batches come by length
    assert len(encodings) > 2
    found = found_entities(CONTEXT, encodings, case["windows"], encoder, "simple")
    same(without_overlap(found), case["simple"])


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("name", TOKENIZERS)
def test_answers_over_windows_are_those_of_the_pipeline(name, case):
    expected = CASES[name]["answers"][case]
    encoder = PairEncoder(tokenizer(name), WINDOW, name, STRIDE)
    encodings = {}
    for batch in encoder.batches(expected["question"], CONTEXT, 2):
        encodings.update(zip(batch.rows, batch.encodings, strict=True))
    windows = [
        Window(encodings[i], np.float32(start), np.float32(end))
        for i, (start, end) in enumerate(zip(expected["start"], expected["end"], strict=True))
    ]
    assert len(windows) == len(encodings) > 2
    step = Span(start="s", end="e", max_tokens=6, may_lack=expected["may_lack"])
    found = best_answers(CONTEXT, windows, step, top=4)
    assert [(a.text, a.start, a.end) for a in found] == [
        (text, start, end) for text, _, start, end in expected["answers"]
    ]
    scores = [score for _, score, _, _ in expected["answers"]]
    np.testing.assert_allclose([a.score for a in found], scores, rtol=2e-4)


def test_letters_and_words_in_time_are_those_of_wav2vec2():
    case = CASES["letters"]
    tokens = {number: token for token, number in case["vocabulary"].items()}
    found = decode(case["ids"], tokens, Ctc(output="y", seconds=0.5))
    assert found.text == " ".join(case["text"].split())
    assert [(w.text, w.start * 2, w.end * 2) for w in found.words] == [
        tuple(word) for word in case["words"]
    ]
