from __future__ import annotations

import json

import numpy as np
import pytest

from edge_sdk.cli.main import main
from edge_sdk.cli.run import read_npz, write_npz
from edge_sdk.runtime.steps import Labels
from tests.runtime import onnx_bytes as ob
from tests.runtime.bundles import HERE, Builder, linear, plan, spec
from tests.runtime.test_audio import riff, speller, spoken
from tests.runtime.test_image import judge
from tests.runtime.test_tasks import filler, reader, tagger
from tests.runtime.test_text import TABLE, classifier, embedder, expected, text_classifier


@pytest.fixture
def bundle(tmp_path):
    return linear(tmp_path / "bundle")


@pytest.fixture
def given(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x=np.ones((1, 2), np.float32))
    return path


def run(*arguments) -> int:
    return main(["run", "--profile", HERE, *map(str, arguments)])


def test_arrays_in_arrays_out(bundle, given, tmp_path, capsys):
    output = tmp_path / "y.npz"
    assert run(bundle, "--input", given, "--output", output) == 0
    with np.load(output) as found:
        assert found["y"].tolist() == [[3, 5, 7]]
    assert str(output) in capsys.readouterr().out


def test_json_is_one_object_with_a_schema(bundle, given, tmp_path, capsys):
    output = tmp_path / "y.npz"
    assert run(bundle, "--input", given, "--output", output, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "org.edge-sdk.run/1"
    assert (found["name"], found["version"], found["profile"]) == ("tiny", "1.0.0", HERE)
    assert found["outputs"] == [{"name": "y", "dtype": "float32", "shape": [1, 3]}]
    assert found["output_file"] == str(output)


def test_text_is_embedded(tmp_path, capsys):
    embedder(tmp_path / "b")
    assert run(tmp_path / "b", "--text", "red sky", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(found["embedding"], expected("red sky"), rtol=1e-6)
    assert run(tmp_path / "b", "--text", "red sky") == 0
    assert len(capsys.readouterr().out.split()) == TABLE.shape[1]


def test_text_is_classified_where_there_are_labels(tmp_path, capsys):
    text_classifier(tmp_path / "b")
    assert run(tmp_path / "b", "--text", "red sky", "--top", 2, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [set(row) for row in found["classes"]] == [{"label", "score"}] * 2
    assert run(tmp_path / "b", "--text", "red sky") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["label", "score"]
    assert lines[1].split()[0] == found["classes"][0]["label"]


def test_strings_and_odd_names_survive_the_npz(tmp_path):
    with Builder(tmp_path / "b") as builder:
        specs = [spec("file", ["n"], "string")], [spec("self", ["n"], "string")]
        builder.graph([ob.node("Identity", ["file"], ["self"])], *specs)
        builder.variant()
    write_npz(tmp_path / "x.npz", {"file": np.array(["a", "bé"], object)})
    assert run(tmp_path / "b", "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz") == 0
    assert read_npz(tmp_path / "y.npz")["self"].tolist() == ["a", "bé"]


def test_failed_run_leaves_no_output(bundle, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", x=np.ones((1, 3), np.float32))
    output = tmp_path / "y.npz"
    assert run(bundle, "--input", tmp_path / "x.npz", "--output", output) == 2
    assert "expected float32 [batch, 2], given float32 [1, 3]" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "x.npz"]


def test_unwritable_output_is_failed_work(bundle, given, tmp_path, capsys):
    assert run(bundle, "--input", given, "--output", tmp_path / "no" / "y.npz") == 1
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04broken"])
def test_unreadable_input_is_bad_input(bundle, tmp_path, capsys, content):
    (tmp_path / "x.npz").write_bytes(content)
    assert run(bundle, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz") == 2
    assert "x.npz: cannot be read" in capsys.readouterr().err


def test_pickles_are_refused(bundle, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", x=np.array([{}]))
    assert run(bundle, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz") == 2
    assert "cannot be read" in capsys.readouterr().err


def test_single_npy_is_bad_input(bundle, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.ones(2))
    assert run(bundle, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npz") == 2
    assert "cannot be read" in capsys.readouterr().err


def test_input_without_output_is_bad_input(bundle, given):
    assert run(bundle, "--input", given) == 2


def test_prompt_for_a_model_that_generates_nothing_is_bad_input(bundle, capsys):
    assert run(bundle, "--prompt", "Once upon a time") == 2
    assert "does not generate text" in capsys.readouterr().err


def test_text_for_a_model_without_tokenizer_is_bad_input(bundle, capsys):
    assert run(bundle, "--text", "red") == 2
    assert "no pool step" in capsys.readouterr().err


def test_memory_limit_is_failed_work_with_numbers(tmp_path, given, capsys):
    path = linear(tmp_path / "tight", memory=plan())
    assert run(path, "--input", given, "--output", tmp_path / "y", "--memory-limit", "50MiB") == 1
    assert "short by" in capsys.readouterr().err


def test_tags_answers_and_gaps_are_printed(tmp_path, capsys):
    tagger(tmp_path / "tags")
    assert run(tmp_path / "tags", "--text", "a red green sky") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][:1] + lines[1][2:] == ["COLOUR", "2-11", "red", "green"]
    reader(tmp_path / "answers")
    asked = ("--text", "green red sky green", "--question", "green")
    assert run(tmp_path / "answers", *asked, "--top", 1, "--json") == 0
    [answer] = json.loads(capsys.readouterr().out)["answers"]
    assert (answer["text"], answer["start"], answer["end"]) == ("red sky", 6, 13)
    assert run(tmp_path / "answers", *asked) == 0
    assert "red sky" in capsys.readouterr().out
    filler(tmp_path / "gaps")
    assert run(tmp_path / "gaps", "--text", "red gap", "--top", 1) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "sky"


def test_pictures_are_classified(tmp_path, capsys):
    judge(tmp_path / "b")
    np.save(tmp_path / "x.npy", np.full((2, 2, 3), [255, 0, 0], np.uint8))
    assert run(tmp_path / "b", "--image", tmp_path / "x.npy", "--top", 1, "--json") == 0
    [best] = json.loads(capsys.readouterr().out)["classes"]
    assert best["label"] == "r"
    np.save(tmp_path / "y.npy", np.zeros((2, 2, 4), np.uint8))
    assert run(tmp_path / "b", "--image", tmp_path / "y.npy") == 2
    assert "leave its alpha channel out" in capsys.readouterr().err


def test_speech_is_transcribed(tmp_path, capsys):
    speller(tmp_path / "b", vocabulary=b'{"<pad>": 0, "a": 1, "b": 2, "|": 3}')
    path = riff(tmp_path / "x.wav", 3, 32, 1_000, 1, spoken("_ab_ b").astype("<f4").tobytes())
    assert run(tmp_path / "b", "--audio", path) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "ab b"
    assert out[2].split() == ["0.00", "0.01", "ab"]
    assert run(tmp_path / "b", "--audio", path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["text"], [word["text"] for word in found["words"]]) == ("ab b", ["ab", "b"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image", "x.npy", "--question", "why?"], "--question needs --text"),
        (["--text", "red", "--language", "de"], "--language needs --audio"),
        (["--audio", "x.wav"], "cannot transcribe sound"),
        (["--text", "red", "--question", "why?"], "cannot answer questions"),
        (["--image", "x.npy"], "cannot classify"),
    ],
)
def test_what_a_variant_cannot_do_is_said(tmp_path, capsys, options, message):
    embedder(tmp_path / "b")
    assert run(tmp_path / "b", *options) == 2
    assert message in capsys.readouterr().err


def test_inspect_shows_steps_and_the_first_of_many_labels(tmp_path, capsys):
    names = tuple(f"class {i}" for i in range(1000))
    classifier(tmp_path / "b", labels=Labels(output="logits", names=names))
    assert main(["inspect", str(tmp_path / "b"), "--profile", HERE]) == 0
    lines = capsys.readouterr().out.splitlines()
    [labels] = [line for line in lines if line.strip().startswith("labels  n")]
    assert "'class 7', … 1000 in all]" in labels
    assert "  softmax  output=logits" in lines
