from __future__ import annotations

import numpy as np
import pytest

import edge_sdk
from edge_sdk.bundle import record as rec
from edge_sdk.errors import BundleError, DataError, InputError, MemoryLimitError
from edge_sdk.runtime.scores import pool, rank, softmax
from edge_sdk.runtime.steps import Labels, Pool, Softmax, Tokenize, parse_steps, to_step
from edge_sdk.runtime.tasks.results import Classification
from edge_sdk.runtime.text import TextEncoder
from tests.runtime import onnx_bytes as ob
from tests.runtime.bundles import HERE, WORDS, Builder, plan, spec, tokenizer_json

INPUTS = {"ids": "ids", "mask": "mask"}
TABLE = np.random.default_rng(0).standard_normal((len(WORDS), 3)).astype(np.float32)


def embedder(
    path,
    *,
    inputs=None,
    shape=("batch", "seq"),
    pooling=None,
    max_length=8,
    limit=None,
    memory=None,
):
    """Token vectors looked up in ``TABLE``; the mask is not used by the graph."""
    inputs = inputs or INPUTS
    with Builder(path) as builder:
        specs = [spec(name, shape, "int64") for name in inputs]
        tokens = spec("tokens", [*shape, 3])
        builder.graph([ob.node("Gather", ["t", "ids"], ["tokens"])], specs, [tokens], {"t": TABLE})
        builder.variant(
            preprocess=(to_step(Tokenize(inputs=inputs, max_length=max_length)),),
            postprocess=(to_step(pooling or Pool(output="tokens", normalize=False)),),
            files=(rec.File(path="tokenizer.json", blob=builder.blob(tokenizer_json())),),
            memory=memory or plan(),
        )
    return edge_sdk.load(path, HERE, limit)


def expected(text: str) -> np.ndarray:
    """Mean over [CLS], the words and [SEP]."""
    return TABLE[[2, *(WORDS.index(word) for word in text.split()), 3]].mean(axis=0)


TEXTS = ["blue sky", "red", "green blue red sky", "", "sky sky sky"]


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_vectors_come_in_the_order_of_texts_and_ignore_padding(tmp_path, batch):
    found = embedder(tmp_path / "b").embed(TEXTS, batch=batch)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [expected(text) for text in TEXTS], rtol=1e-6)


def test_one_text_gives_one_row_and_no_text_none(tmp_path):
    model = embedder(tmp_path / "b")
    np.testing.assert_allclose(model.embed("red"), [expected("red")], rtol=1e-6)
    assert model.embed([]).shape == (0, 3)


def test_prompts_go_before_texts(tmp_path):
    prompts = {"query": "blue ", "passage": "red "}
    pooling = Pool(output="tokens", normalize=False, prompts=prompts, prompt="query")
    model = embedder(tmp_path / "b", pooling=pooling)
    for prompt, text in ((None, "blue sky"), ("passage", "red sky"), ("", "sky")):
        found = model.embed("sky", prompt=prompt)
        np.testing.assert_allclose(found, [expected(text)], rtol=1e-6)
    with pytest.raises(InputError, match="'title' is none of the model's prompts"):
        model.embed("sky", prompt="title")


def test_batches_shrink_to_the_memory_limit(tmp_path):
    fits_two = plan(2**20, batch=1)
    model = embedder(tmp_path / "b", memory=fits_two, limit="62MiB")
    sizes = []
    run = model._tasks.run
    model._tasks.run = lambda feeds: sizes.append(len(feeds["ids"])) or run(feeds)
    np.testing.assert_allclose(model.embed(TEXTS), [expected(t) for t in TEXTS], rtol=1e-6)
    assert sizes == [5, 2, 3, 1, 2]


def test_text_that_does_not_fit_alone_is_refused(tmp_path):
    model = embedder(tmp_path / "b", memory=plan(2**20, seq=4), limit="61MiB")
    model.embed("red sky")
    with pytest.raises(MemoryLimitError, match="short by"):
        model.embed("red sky blue")


@pytest.mark.parametrize("given", [[1], ["red", None], [["red"]]])
def test_texts_must_be_strings(tmp_path, given):
    with pytest.raises(DataError, match="expected str"):
        embedder(tmp_path / "b").embed(given)


def test_batch_and_top_must_be_positive(tmp_path):
    with pytest.raises(InputError, match="at least 1"):
        embedder(tmp_path / "b").embed("red", batch=0)
    with pytest.raises(InputError, match="at least 1"):
        text_classifier(tmp_path / "c").classify("red", top=0)


def test_model_without_mask_is_never_given_padding(tmp_path):
    model = embedder(tmp_path / "b", inputs={"ids": "ids"})
    np.testing.assert_allclose(model.embed(TEXTS), [expected(t) for t in TEXTS], rtol=1e-6)


def test_fixed_batch_and_length_are_respected(tmp_path):
    model = embedder(tmp_path / "b", shape=(1, 8))
    np.testing.assert_allclose(model.embed(TEXTS), [expected(t) for t in TEXTS], rtol=1e-6)


def test_fixed_length_cuts_what_is_longer(tmp_path):
    model = embedder(tmp_path / "b", shape=(1, 4), max_length=64)
    np.testing.assert_allclose(model.embed("red sky blue"), [expected("red sky")], rtol=1e-6)


def test_long_text_is_cut_with_its_end_token_kept(tmp_path):
    model = embedder(tmp_path / "b", max_length=4)
    np.testing.assert_allclose(model.embed("red sky blue"), [expected("red sky")], rtol=1e-6)


def test_cls_pooling_and_unit_length(tmp_path):
    model = embedder(tmp_path / "b", pooling=Pool(output="tokens", mode="cls", normalize=True))
    found = model.embed("red sky")
    np.testing.assert_allclose(found, [TABLE[2] / np.linalg.norm(TABLE[2])], rtol=1e-5)


def test_batches_hold_texts_of_similar_length():
    encoder = TextEncoder(tokenizer_json(), 64, "tokenizer.json")
    texts = ["red " * 9, "red", "red " * 10, "sky"]
    batches = list(encoder.batches(texts, size=2))
    assert [batch.rows for batch in batches] == [(1, 3), (0, 2)]
    assert [batch.arrays["ids"].shape for batch in batches] == [(2, 3), (2, 12)]
    assert batches[1].arrays["mask"].sum(axis=1).tolist() == [11, 12]


def classifier(path, *, labels, softmax_step=True):
    """Scores of class i = i * x."""
    with Builder(path) as builder:
        builder.graph(
            [ob.node("Mul", ["x", "w"], ["logits"])],
            [spec("x", ["batch", 1])],
            [spec("logits", ["batch", 3])],
            {"w": np.float32([0, 1, 2])},
        )
        steps = [Softmax(output="logits")] if softmax_step else []
        builder.variant(
            postprocess=tuple(map(to_step, [*steps, labels])),
            files=(rec.File(path="labels.txt", blob=builder.blob(b"ant\nbee\ncat\n")),),
        )
    return edge_sdk.load(path, HERE)


def test_classes_are_ranked_with_probabilities(tmp_path):
    model = classifier(tmp_path / "b", labels=Labels(output="logits", file="labels.txt"))
    assert model.labels == ("ant", "bee", "cat")
    first, second = model.classify({"x": np.float32([[1], [-1]])}, top=2)
    assert [c.label for c in first] == ["cat", "bee"]
    assert [c.label for c in second] == ["ant", "bee"]
    assert first[0].score == pytest.approx(np.e**2 / (1 + np.e + np.e**2))


WEIGHTS = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)


def text_classifier(path):
    """Logits = token ids of four positions, times ``WEIGHTS``."""
    with Builder(path) as builder:
        ids, mask = (spec(name, ["batch", 4], "int64") for name in INPUTS)
        nodes = [ob.node("Cast", ["ids"], ["f"], to=1), ob.node("MatMul", ["f", "w"], ["logits"])]
        builder.graph(nodes, [ids, mask], [spec("logits", ["batch", 3])], {"w": WEIGHTS})
        builder.variant(
            preprocess=(to_step(Tokenize(inputs=INPUTS, max_length=4)),),
            postprocess=(to_step(Labels(output="logits", names=("a", "b", "c"))),),
            files=(rec.File(path="tokenizer.json", blob=builder.blob(tokenizer_json())),),
        )
    return edge_sdk.load(path, HERE)


def test_texts_are_classified_in_their_order(tmp_path):
    found = text_classifier(tmp_path / "b").classify(["red sky", "blue"], top=1)
    logits = np.float32([[2, 4, 7, 3], [2, 6, 3, 0]]) @ WEIGHTS
    for [best], row in zip(found, logits, strict=True):
        assert best.label == "abc"[row.argmax()]
        assert best.score == pytest.approx(row.max(), rel=1e-5)


def test_scores_stay_raw_without_softmax(tmp_path):
    labels = Labels(output="logits", names=("a", "b", "c"))
    model = classifier(tmp_path / "b", labels=labels, softmax_step=False)
    assert model.classify({"x": np.float32([[3]])}, top=1) == [[Classification("c", 6.0)]]


def test_number_of_labels_must_be_that_of_classes(tmp_path):
    model = classifier(tmp_path / "b", labels=Labels(output="logits", names=("a", "b")))
    with pytest.raises(DataError, match=r"expected scores \[batch, 2\].*given \(1, 3\)"):
        model.classify({"x": np.float32([[1]])})


def test_missing_step_is_named(tmp_path):
    model = classifier(tmp_path / "b", labels=Labels(output="logits", names=("a", "b", "c")))
    with pytest.raises(InputError, match="cannot embed texts: its record has no pool step"):
        model.embed("red")
    with pytest.raises(InputError, match="cannot take text: its record has no tokenize step"):
        model.classify("red")
    with pytest.raises(InputError, match="cannot classify: its record has no labels step"):
        embedder(tmp_path / "e").classify("red")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (rec.Step(op="dance"), "unknown step"),
        (rec.Step(op="pool", options={"output": "tokens", "mode": "max"}), "Invalid enum value"),
        (rec.Step(op="pool", options={"output": "tokens", "speed": 1}), "unknown field"),
        (rec.Step(op="tokenize", options={"inputs": {}, "max_length": 0}), ">= 1"),
    ],
)
def test_step_that_is_wrong_is_a_bundle_error(step, message):
    with pytest.raises(BundleError, match=message) as error:
        parse_steps([step])
    assert step.op in error.value.where


def test_step_that_names_no_output_is_refused_at_load(tmp_path):
    with pytest.raises(BundleError, match=r"names \['nothing'\], the variant has \['logits'\]"):
        classifier(tmp_path / "b", labels=Labels(output="nothing", names=("a", "b", "c")))


def test_steps_survive_the_record():
    step = Tokenize(inputs={"ids": "ids"}, max_length=16)
    assert parse_steps([to_step(step)]) == (step,)


def test_unreadable_tokenizer_is_a_bundle_error():
    with pytest.raises(BundleError, match="not a readable tokenizer"):
        TextEncoder(b"{}", 8, "tokenizer.json")


def test_pooling_wants_the_rank_of_its_mode():
    mask = np.ones((1, 2), np.int64)
    with pytest.raises(DataError, match="needs an output of rank 3"):
        pool(np.ones((1, 2), np.float32), mask, Pool(output="y"))
    flat = pool(np.float32([[3, 4]]), mask, Pool(output="y", mode="none"))
    np.testing.assert_allclose(flat, [[0.6, 0.8]], rtol=1e-6)


def test_pooling_nothing_is_zero_and_not_nan():
    empty = np.zeros((1, 2), np.int64)
    assert pool(np.ones((1, 2, 3), np.float32), empty, Pool(output="y")).tolist() == [[0, 0, 0]]


def test_softmax_does_not_overflow():
    np.testing.assert_allclose(softmax(np.float32([[1000, 1000, -1000]])), [[0.5, 0.5, 0]])


def test_ties_are_ranked_in_the_order_of_labels():
    assert [c.label for c in rank(np.float32([[1, 2, 2]]), "abc", 3, "y")[0]] == ["b", "c", "a"]
