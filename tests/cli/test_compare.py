"""``edge-sdk compare`` on files, bundles, variants, texts and dialogue models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from tests.cli.conftest import Converted, answer, edge_sdk
from tests.generation import tiny
from tests.litert.test_opaque import save, symmetric_padding
from tests.seq2seq import devices

pytestmark = pytest.mark.converts
QUICK = ("--seconds", 0.05, "--threads", 1)


@pytest.fixture(scope="module")
def writes(tmp_path_factory) -> Path:
    return devices.bundle(tmp_path_factory.mktemp("writes"), "t5")


@pytest.fixture(scope="module")
def dialogue(tmp_path_factory) -> Path:
    return tiny.bundle(tmp_path_factory.mktemp("dialogue") / "bundle")


def renamed(source: Path, target: Path) -> Path:
    """The same model with other names for its inputs and outputs."""
    model = onnx.load(source)
    names = {v.name: f"other_{v.name}" for v in (*model.graph.input, *model.graph.output)}
    for value in (*model.graph.input, *model.graph.output):
        value.name = names[value.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    onnx.save(model, target)
    return target


def test_a_file_and_two_variants_are_compared_on_labelled_data(classifier: Converted):
    data = classifier.source.parent / "data.npz"
    subjects = [classifier.source, *(f"{classifier.bundle}@{p}" for p in ("x86-64", "board-512mb"))]
    found = answer("compare", *subjects, "--data", data, *QUICK)
    first, *others = found["rows"]
    assert [row["given"] for row in found["rows"]] == [str(subject) for subject in subjects]
    assert first["agreement"]["drop"] == 0
    assert first["agreement"]["cosine"] == 1
    assert first["speedup"] == 1
    for row in others:
        assert row["size_bytes"] < first["size_bytes"]
        assert row["agreement"]["cosine"] > 0.98
        assert row["start"]["peak_rss_bytes"] > 2**20
        assert row["throughput"][0]["calls_per_second"] > 0
    with np.load(data) as arrays:
        assert found["samples"] == len(arrays["labels"])


def test_a_worse_model_is_told_from_a_good_one(classifier: Converted, tmp_path):
    model = onnx.load(classifier.source)
    rng = np.random.default_rng(1)
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            noisy = array + rng.normal(scale=0.5 * array.std() + 1e-3, size=array.shape)
            tensor.CopyFrom(onnx.numpy_helper.from_array(noisy.astype(np.float32), tensor.name))
    onnx.save(model, tmp_path / "noisy.onnx")
    data = classifier.source.parent / "data.npz"
    good, noisy = classifier.source, tmp_path / "noisy.onnx"
    rows = answer("compare", good, noisy, "--data", data, "--metric", "top1", *QUICK)["rows"]
    assert rows[1]["metrics"]["top1"] < rows[0]["metrics"]["top1"]
    assert rows[1]["agreement"]["cosine"] < 0.999


def test_inputs_and_outputs_of_other_names_correspond_by_place(classifier: Converted, tmp_path):
    other = renamed(classifier.source, tmp_path / "other.onnx")
    rows = answer("compare", classifier.source, other, *QUICK)["rows"]
    assert rows[1]["agreement"]["max_error"] == 0


def test_files_that_only_litert_understands_are_compared_on_data(tmp_path):
    file, data = save(tmp_path, symmetric_padding()), tmp_path / "data.npz"
    np.savez(data, value=np.arange(32, dtype=np.float32).reshape(8, 4))
    first, second = answer("compare", file, file, "--data", data, *QUICK)["rows"]
    assert (first["engine"], first["precision"]) == ("litert", "as it is")
    assert second["agreement"]["max_error"] == 0
    done = edge_sdk("compare", file, file, *QUICK)
    assert done.returncode == 2
    assert "give --data" in done.stderr


def test_outputs_of_other_shapes_are_said_to_be(tmp_path):
    """The figures alone would say that a model is bad, not that it does something else."""
    for name, classes in (("a", 3), ("b", 4)):
        weights = onnx.numpy_helper.from_array(np.ones((2, classes), np.float32), "w")
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
            name,
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 2])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", classes])],
            [weights],
        )
        opsets = [onnx.helper.make_opsetid("", 17)]
        onnx.save(
            onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8),
            tmp_path / f"{name}.onnx",
        )
    found = answer("compare", tmp_path / "a.onnx", tmp_path / "b.onnx", *QUICK)
    assert found["notes"][-1] == f"{tmp_path / 'b.onnx'}: output y shape differs"


def test_encoders_are_compared_on_text(encoder: Converted):
    data = encoder.source.parent / "sentences.jsonl"
    found = answer("compare", encoder.source, encoder.bundle, "--data", data, *QUICK)
    assert found["rows"][1]["agreement"]["nearest"] is not None
    assert found["samples"] == len(data.read_text().splitlines())


def test_recurrent_models_roll_their_states_forward(recurrent: Converted):
    data = recurrent.source.parent / "data.npz"
    found = answer("compare", recurrent.source, recurrent.bundle, "--data", data, *QUICK)
    assert 0.98 < found["rows"][1]["agreement"]["cosine"] <= 1


def test_dialogue_models_are_compared_by_perplexity_and_pace(dialogue, tmp_path):
    text = tmp_path / "texts.jsonl"
    line = {"text": "the lamp in the hall is on and the door is open " * 4}
    text.write_text("\n".join([json.dumps(line)] * 8))
    rows = answer("compare", dialogue, dialogue, "--data", text, *QUICK)["rows"]
    assert rows[0]["metrics"]["perplexity"] == rows[1]["metrics"]["perplexity"] > 1
    assert rows[1]["dialogue"]["tokens_per_second"] > 0


def test_encoder_decoder_models_are_compared_by_what_they_write(writes, tmp_path):
    """The other one may not write longer than three tokens."""
    decoding = msgspec.structs.replace(devices.DECODING["t5"], context=4)
    short = devices.bundle(tmp_path, "t5", decoding=decoding)
    data = tmp_path / "pairs.jsonl"
    lines = [("one two three four", "1 2 3 4"), ("four four zero", "4 4 0"), ("nine", "9")]
    data.write_text("".join(json.dumps({"text": t, "target": w}) + "\n" for t, w in lines))
    page = tmp_path / "compare.html"
    found = answer("compare", writes, short, "--data", data, "--html", page, *QUICK)
    first, second = found["rows"]
    assert found["samples"] == 3
    assert first["metrics"] == {"rouge-l": 1, "same text": 1, "wer to first": 0}
    assert second["metrics"]["same text"] == pytest.approx(2 / 3)
    assert second["metrics"]["wer to first"] == pytest.approx(1 / 8)
    assert second["agreement"]["cosine"] == 1  # of the same tokens, whoever wrote them
    assert second["dialogue"]["ttft_ms"] > 0
    assert second["start"]["peak_rss_bytes"] > 2**20
    assert "Different texts" in page.read_text()


def test_the_page_names_every_model_and_escapes_it(classifier: Converted, tmp_path):
    odd = tmp_path / "<b>model.onnx"
    shutil.copy(classifier.source, odd)
    page = tmp_path / "compare.html"
    done = edge_sdk("compare", classifier.source, odd, "--html", page, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "inputs were generated" in done.stdout
    text = page.read_text()
    assert "&lt;b&gt;model.onnx" in text
    assert "<b>model" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{source}"], "there is nothing to compare with"),
        (["{source}", "nowhere.onnx"], "nowhere.onnx: no such file or folder"),
        (["{source}", "{source}@x86-64"], "only a bundle has variants"),
        (["{source}", "{bundle}@jetson-orin-nano"], "no variant for profile 'jetson-orin-nano'"),
        (["{source}", "{two_inputs}"], "do not correspond to the baseline's"),
        (["{source}", "{dialogue}"], "is neither and {dialogue} is a dialogue model"),
        (["{dialogue}", "{writes}"], "and {writes} is an encoder-decoder model"),
        (["{writes}", "{writes}"], "texts or sounds are needed to compare models that write"),
        (["{writes}", "{writes}", "--data", "{texts}", "--metric", "wer"], "needs a target for"),
        (["{dialogue}", "{dialogue}"], "texts or sounds are needed"),
    ],
)
def test_what_cannot_be_compared_is_said(
    arguments, message, classifier, two_inputs, dialogue, writes, tmp_path
):
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n')
    places = {
        "texts": tmp_path / "texts.jsonl",
        "writes": writes,
        "source": classifier.source,
        "bundle": classifier.bundle,
        "two_inputs": two_inputs.source,
        "dialogue": dialogue,
    }
    done = edge_sdk("compare", *(argument.format(**places) for argument in arguments))
    assert done.returncode == 2, done.stderr
    assert message.format(**places) in done.stderr
    assert "Traceback" not in done.stderr
