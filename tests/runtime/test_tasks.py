from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edge_sdk
from edge_sdk.bundle import record as rec
from edge_sdk.errors import BundleError, DataError, InputError
from edge_sdk.runtime.steps import Entities, Fill, Labels, Span, Tokenize, to_step
from edge_sdk.runtime.tasks.results import Filling
from tests.runtime import onnx_bytes as ob
from tests.runtime.bundles import HERE, WORDS, Builder, spec, tokenizer_json

INPUTS = {"ids": "ids", "mask": "mask", "types": "types"}
LABELS = ("O", "B-COLOUR", "I-COLOUR", "PLACE")
WORD_LABELS = {"red": 1, "green": 2, "blue": 2, "sky": 3}


def table(columns: int, **rows: dict[int, float]) -> np.ndarray:
    """Logits of each word, by its id."""
    found = np.zeros((len(WORDS), columns), np.float32)
    for word, logits in rows.items():
        for column, value in logits.items():
            found[WORDS.index(word), column] = value
    return found


def model(
    path: Path, outputs: dict[str, np.ndarray], *steps, length: int | str = "length", **options
):
    """Each output is what its table says of the tokens; ``[tokens]`` where it has one column."""
    tokenize = Tokenize(inputs=INPUTS, **({"max_length": 16} | options))
    with Builder(path) as builder:
        nodes = [ob.node("Gather", [f"{name}.table", "ids"], [name]) for name in outputs]
        builder.graph(
            nodes,
            [spec(name, ["batch", length], "int64") for name in INPUTS],
            [spec(name, ["batch", length, *rows.shape[1:]]) for name, rows in outputs.items()],
            {f"{name}.table": rows for name, rows in outputs.items()},
        )
        builder.variant(
            preprocess=(to_step(tokenize),),
            postprocess=tuple(to_step(step) for step in steps),
            files=(rec.File(path="tokenizer.json", blob=builder.blob(tokenizer_json())),),
        )
    return edge_sdk.load(path, HERE)


def tagger(path: Path, aggregation="simple", **options):
    logits = {word: {label: 9.0} for word, label in WORD_LABELS.items()}
    step = Entities(output="y", names=LABELS, aggregation=aggregation)
    return model(path, {"y": table(4, **logits)}, step, **options)


def test_entities_come_in_the_order_of_texts_and_stand_where_they_say(tmp_path):
    texts = ["sky", "a red green blue  b red sky", "", "nothing"]
    [first, second, none, nothing] = tagger(tmp_path / "b").tag(texts)
    assert [(e.label, e.text) for e in first] == [("PLACE", "sky")]
    assert [(e.label, e.text) for e in second] == [
        ("COLOUR", "red green blue"), ("COLOUR", "red"), ("PLACE", "sky"),
    ]  # fmt: skip
    assert all(texts[1][e.start : e.end] == e.text for e in second)
    assert none == nothing == []
    assert tagger(tmp_path / "c", "none").tag("red green")[0][1].label == "I-COLOUR"


@pytest.mark.parametrize("length", ["length", 8])
def test_a_long_text_is_tagged_to_its_end_in_windows(tmp_path, length):
    text = "a " * 9 + "red green " + "a " * 9 + "sky"
    windows = tagger(tmp_path / "b", max_length=8, stride=3, length=length)
    assert [(e.label, e.text) for e in windows.tag(text)[0]] == [
        ("COLOUR", "red green"), ("PLACE", "sky"),
    ]  # fmt: skip
    assert tagger(tmp_path / "c", max_length=8).tag(text) == [[]]


def test_labels_are_those_of_the_tags(tmp_path):
    assert tagger(tmp_path / "b").labels == LABELS


def test_tags_must_be_as_many_as_labels(tmp_path):
    broken = model(tmp_path / "b", {"y": table(3)}, Entities(output="y", names=LABELS))
    with pytest.raises(DataError, match=r"one per label, given \(1, 3, 3\)"):
        broken.tag("red")


@pytest.mark.parametrize("given", [("red", "sky"), [("red", "sky")], [None]])
def test_only_texts_are_tagged(tmp_path, given):
    found = tagger(tmp_path / "b")
    if given == ("red", "sky"):
        assert len(found.tag(given)) == 2
    else:
        with pytest.raises(DataError, match="expected str"):
            found.tag(given)


def reader(path: Path, *, may_lack=False, **options):
    """Answers start at "red" and end at "sky"; more so behind "[CLS]" if that may be."""
    start = table(1, red={0: 6.0}, **{"[CLS]": {0: 5.0 if may_lack else 0.0}})[:, 0]
    end = table(1, sky={0: 6.0}, **{"[CLS]": {0: 5.0 if may_lack else 0.0}})[:, 0]
    step = Span(start="s", end="e", max_tokens=4, may_lack=may_lack)
    return model(path, {"s": start, "e": end}, step, **options)


CONTEXT = "sky " * 3 + "green " * 6 + "a red blue sky of green"


def test_the_best_answer_stands_where_it_says(tmp_path):
    [found] = reader(tmp_path / "b", max_length=64).answer("green red sky", CONTEXT)
    assert found.text == CONTEXT[found.start : found.end] == "red blue sky"
    assert 0 < found.score < 1


def test_an_answer_is_found_in_any_window(tmp_path):
    model = reader(tmp_path / "b", max_length=12, stride=4)
    found = model.answer("green", CONTEXT, top=3)
    assert found[0].text == "red blue sky"
    assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)
    assert len({f.text for f in found}) == 3


def test_that_there_is_no_answer_may_be_one(tmp_path):
    model = reader(tmp_path / "b", may_lack=True)
    [found] = model.answer("red", "green green")
    assert (found.text, found.start, found.end) == ("", 0, 0)
    assert model.answer("green", "a red sky")[0].text == "red sky"


@pytest.mark.parametrize(
    ("question", "context", "message"),
    [
        ("", "red", "question: is empty"),
        ("red", " \n", "context: is empty"),
        (None, "red", "question: expected str, given NoneType"),
        ("red", ["sky"], "context: expected str, given list"),
        ("red " * 16, "sky", r"question: 16 tokens leave room for 0 beside them"),
    ],
)
def test_bad_questions_are_said(tmp_path, question, context, message):
    with pytest.raises(DataError, match=message):
        reader(tmp_path / "b").answer(question, context)


def filler(path: Path, gap: str = "[UNK]"):
    logits = table(len(WORDS), **{"[UNK]": {7: 5.0, 4: 4.0}})
    return model(path, {"y": logits}, Fill(output="y", gap=gap))


def test_every_gap_is_filled(tmp_path):
    found = filler(tmp_path / "b").fill("the red gap", top=2)
    assert [[f.text for f in gap] for gap in found] == [["sky", "red"]] * 2
    share = np.exp(5) / (np.exp(5) + np.exp(4) + len(WORDS) - 2)
    assert found[0][0] == Filling("sky", pytest.approx(share))


def test_a_text_without_gap_names_the_token(tmp_path):
    with pytest.raises(DataError, match=r"write \[UNK\] where a word is missing"):
        filler(tmp_path / "b").fill("red sky")
    with pytest.raises(BundleError, match="fill: '<gap>': the tokenizer has no such token"):
        filler(tmp_path / "c", "<gap>").fill("red sky")


def test_pairs_of_texts_are_classified(tmp_path):
    """The type of a token says which text it is of; the score counts those of the second."""
    with Builder(tmp_path / "b") as builder:
        nodes = [
            ob.node("Cast", ["types"], ["second"], to=1),
            ob.node("ReduceSum", ["second"], ["count"], keepdims=1),
            ob.node("Mul", ["count", "w"], ["y"]),
        ]
        builder.graph(
            nodes, [spec(name, [1, "length"], "int64") for name in INPUTS], [spec("y", [1, 2])],
            {"w": np.float32([[0, 1]])},
        )  # fmt: skip
        builder.variant(
            preprocess=(to_step(Tokenize(inputs=INPUTS, max_length=8)),),
            postprocess=(to_step(Labels(output="y", names=("a", "b"))),),
            files=(rec.File(path="tokenizer.json", blob=builder.blob(tokenizer_json())),),
        )
    model = edge_sdk.load(tmp_path / "b", HERE)
    [[single, _]] = model.classify("red sky")
    assert single.score == 0
    several = model.classify([("red", "blue sky"), "sky", ("sky", "red")])
    assert [row[0].score for row in several] == [3, 0, 2]
    assert model.classify(("red", "blue sky")) == several[:1]


@pytest.mark.parametrize("top", [0, -1])
def test_top_must_be_positive(tmp_path, top):
    with pytest.raises(InputError, match="at least 1"):
        filler(tmp_path / "b").fill("gap", top=top)
    with pytest.raises(InputError, match="at least 1"):
        reader(tmp_path / "c").answer("red", "sky", top=top)


def test_a_task_that_a_model_is_not_made_for_names_what_it_can(tmp_path):
    found = tagger(tmp_path / "b")
    for task, call in {
        "answer questions": lambda: found.answer("a", "b"),
        "fill gaps": lambda: found.fill("a"),
        "transcribe sound": lambda: found.transcribe(np.zeros(8)),
        "classify": lambda: found.classify("a"),
        "embed texts": lambda: found.embed("a"),
    }.items():
        with pytest.raises(InputError, match=f"cannot {task}") as error:
            call()
        assert error.value.remedy == "use tag()"


def test_a_stride_that_fills_a_short_graph_is_halved(tmp_path):
    assert tagger(tmp_path / "b", stride=12, length=6).tag("a a a a a red")[0][0].text == "red"


def test_results_are_json(tmp_path):
    import msgspec

    [[entity]] = tagger(tmp_path / "b").tag("sky")
    assert json.loads(msgspec.json.encode(entity))["text"] == "sky"
