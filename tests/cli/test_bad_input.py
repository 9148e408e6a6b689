"""Wrong input gives one error that names it, exit code 2, and nothing half-written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edge_sdk.cli.main import main
from tests.cli import models
from tests.passes.models import graph

Refuse = Callable[..., str]


@pytest.fixture(scope="session")
def classifier_source(tmp_path_factory) -> Path:
    return models.classifier(tmp_path_factory.mktemp("bad-classifier"))


@pytest.fixture(scope="session")
def encoder_source(tmp_path_factory) -> Path:
    return models.encoder(tmp_path_factory.mktemp("bad-encoder"))


@pytest.fixture
def refused(capsys, tmp_path) -> Refuse:
    """Runs a command that must fail, and returns its one error."""

    def run(*arguments: object, code: int = 2) -> str:
        before = sorted(tmp_path.rglob("*"))
        try:
            found = main([str(word) for word in arguments])
        except SystemExit as stop:  # what argparse refuses
            found = stop.code
        said = capsys.readouterr()
        assert (found, said.out) == (code, ""), said
        assert sorted(tmp_path.rglob("*")) == before, "something was left behind"
        errors = [line for line in said.err.splitlines() if "error: " in line]
        assert len(errors) == 1, said.err
        return said.err[said.err.index(errors[0]) :]

    return run


@pytest.fixture
def convert(refused, classifier_source, tmp_path) -> Refuse:
    """A conversion of the classifier that must fail."""

    def run(*options: object, source: Path = classifier_source, code: int = 2) -> str:
        arguments = ("convert", source, "-o", tmp_path / "out", "-p", "x86-64", *options)
        return refused(*arguments, code=code)

    return run


def truncated(source: Path, folder: Path) -> Path:
    path = folder / "cut.onnx"
    path.write_bytes(source.read_bytes()[:9000])
    return path


def text(_: Path, folder: Path) -> Path:
    path = folder / "text.onnx"
    path.write_text("this is no model")
    return path


def empty(_: Path, folder: Path) -> Path:
    path = folder / "empty.onnx"
    path.touch()
    return path


def missing(_: Path, folder: Path) -> Path:
    return folder / "nowhere.onnx"


def folder_of_nothing(_: Path, folder: Path) -> Path:
    return folder


def without_weights(_: Path, folder: Path) -> Path:
    path = models.two_inputs(folder)
    (folder / "weights.bin").unlink()
    return path


def with_cut_weights(_: Path, folder: Path) -> Path:
    path = models.two_inputs(folder)
    weights = folder / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    return path


def _sparse(path: Path, *, constant: bool) -> Path:
    helper = onnx.helper
    values = onnx.numpy_helper.from_array(np.ones(2, np.float32), "w")
    places = onnx.numpy_helper.from_array(np.array([1, 30]), "places")
    weight = helper.make_sparse_tensor(values, places, [8, 4])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if constant:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=weight))
    graph = helper.make_graph(
        nodes,
        "sparse",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4])],
        sparse_initializer=[] if constant else [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def with_sparse_weight(_: Path, folder: Path) -> Path:
    return _sparse(folder / "sparse.onnx", constant=False)


def with_sparse_constant(_: Path, folder: Path) -> Path:
    return _sparse(folder / "sparse.onnx", constant=True)


def with_names_and_scores(_: Path, folder: Path) -> Path:
    """What skl2onnx makes of a classifier by default."""
    helper = onnx.helper
    scores = helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
    kind = helper.make_map_type_proto(onnx.TensorProto.INT64, scores)
    graph = helper.make_graph(
        [helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])],
        "named",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 2])],
        [helper.make_value_info("y", helper.make_sequence_type_proto(kind))],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), folder / "named.onnx")
    return folder / "named.onnx"


SOURCES = {
    with_names_and_scores: "Map types are not supported yet\n  remedy: leave ZipMap out of it",
    with_sparse_weight: "sparse.onnx: its weight 'w' is a sparse initializer, which is not read",
    with_sparse_constant: "sparse.onnx: not an ONNX graph: Sparse tensors are not supported yet",
    truncated: "cut.onnx: not an ONNX model",
    text: "text.onnx: not an ONNX model",
    empty: "empty.onnx: not an ONNX model: the file is empty",
    missing: "nowhere.onnx: no such file",
    folder_of_nothing: "not a model format",
    without_weights: "two-inputs.onnx: its external data file 'weights.bin' is missing",
    with_cut_weights: "two-inputs.onnx: its external data file 'weights.bin' is missing or cut off",
}


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize("command", ["convert", "fit"])
def test_source_that_is_no_model(refused, classifier_source, tmp_path, make, command):
    source = make(classifier_source, tmp_path)
    out = ("-o", tmp_path / "out") if command == "convert" else ()
    assert SOURCES[make] in refused(command, source, "-p", "x86-64", *out)


def test_source_that_no_engine_runs(convert, tmp_path):
    model = ir.to_proto(graph("(float[N] x) => (float[N] y)", "y = Relu (x)"))
    model.graph.node[0].domain = "unheard.of"
    model.opset_import.append(onnx.helper.make_opsetid("unheard.of", 1))
    onnx.save(model, tmp_path / "custom.onnx")
    found = convert(source=tmp_path / "custom.onnx")
    assert "custom.onnx: the model itself does not run" in found


X = np.zeros((12, 3, 16, 16), np.float32)
WITH_NAN = X.copy()
WITH_NAN[3, 1, 2, 0] = np.nan
ARRAYS = {
    "another name": ({"image": X}, "input x (float32 [N, 3, 16, 16]) is missing"),
    "another shape": ({"x": X[:, :2]}, "shape [12, 2, 16, 16] does not fit"),
    "another rank": ({"x": X[0, 0]}, "shape [16, 16] does not fit"),
    "another type": ({"x": X.astype(np.int64)}, "int64 values do not fit the input's float32"),
    "text": ({"x": np.array(["a", "b"])}, "do not fit the input's float32"),
    "nan": ({"x": WITH_NAN}, "array 'x': 1 values are NaN, the first at [3, 1, 2, 0]"),
    "no samples": ({"x": X[:0]}, "there are no samples in it"),
    "objects": ({"x": np.array([{}])}, "cannot be read as .npz"),
    "too few labels": ({"x": X, "labels": np.zeros(5, int)}, "labels of shape [5] do not fit 12"),
    "labels beyond": ({"x": X, "labels": np.full(12, 4)}, "4 is no class: the model scores"),
    "unknown label": ({"x": X, "labels": np.array(["oak"] * 11 + ["yew"])}, "label 'yew'"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_do_not_fit_the_model(convert, tmp_path, case):
    arrays, message = ARRAYS[case]
    np.savez(tmp_path / "data.npz", **arrays)
    assert message in convert("--data", tmp_path / "data.npz")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_data_that_is_no_archive(convert, tmp_path, content):
    (tmp_path / "data.npz").write_bytes(content)
    assert "data.npz: cannot be read as .npz" in convert("--data", tmp_path / "data.npz")


def test_single_array_instead_of_an_archive(convert, tmp_path):
    np.save(tmp_path / "data.npy", X)
    path = (tmp_path / "data.npy").rename(tmp_path / "data.npz")
    assert "data.npz: cannot be read as .npz" in convert("--data", path)


@pytest.mark.parametrize("name", ["nowhere.npz", "nowhere.jsonl", "nowhere"])
def test_data_that_is_not_there(convert, tmp_path, name):
    assert f"{name}: no such file" in convert("--data", tmp_path / name)


def test_folder_without_data(convert, tmp_path):
    assert "the folder has no .npz file" in convert("--data", tmp_path)


def test_text_for_a_model_without_tokenizer(convert, encoder_source):
    data = encoder_source.parent / "sentences.jsonl"
    assert "text needs the model's tokenizer" in convert("--data", data)


LINES = {
    '{"text": "w5"}\n{"text": w6}': "line 2: JSON is malformed",
    '{"sentence": "w5"}': "line 1: has neither a text nor a question and its context",
    "": "there are no samples in it",
    '{"text": "w5", "label": 1}\n{"text": "w6"}': "only 1 of 2 samples have labels",
}


@pytest.mark.parametrize("content", LINES)
def test_lines_that_are_no_texts(convert, encoder_source, tmp_path, content):
    (tmp_path / "data.jsonl").write_text(content)
    found = convert("--data", tmp_path / "data.jsonl", source=encoder_source)
    assert LINES[content] in found


def test_damaged_tokenizer(convert, encoder_source, tmp_path):
    source = shutil.copy(encoder_source, tmp_path)
    data = shutil.copy(encoder_source.parent / "sentences.jsonl", tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "tokenizer.json" in convert("--data", data, source=Path(source))


RECIPES = {
    'name = "a"\n[[steps]]\nop = "nope"': "unknown pass 'nope'",
    'name = "a"\n[[steps]]\nop = "static-qdq"\noptions = {methd = 1}': "unknown field `methd`",
    'name = "a"\n[[steps]]\nop = "static-qdq"\noptions = {method = "x"}': "at `$.method`",
    "name = ": "recipe.toml: Invalid value",
    "": "recipe.toml: Object missing required field `name`",
    'name = "nope"': "unknown recipe family 'nope'",
    'name = "a"\nfoo = 1': "unknown field `foo`",
}


@pytest.mark.parametrize("content", RECIPES)
def test_recipe_that_is_wrong(convert, tmp_path, content):
    (tmp_path / "recipe.toml").write_text(content)
    assert RECIPES[content] in convert("--recipe", tmp_path / "recipe.toml")


@pytest.mark.parametrize("name", ["", "nowhere.toml"])
def test_recipe_that_cannot_be_read(convert, tmp_path, name):
    assert "cannot be read" in convert("--recipe", tmp_path / name)


OPTIONS = {
    "--max-drop -1": "--max-drop: -1 is no limit",
    "--max-drop nan": "--max-drop: nan is no limit",
    "--max-drop much": "argument --max-drop: invalid float value: 'much'",
    "--metric nope": "--metric: unknown metric 'nope'",
    "--metric nope:accuracy": "--metric: cannot load metric 'nope:accuracy'",
    "--metric f1": "--metric: metric 'f1' needs labels, and the data has none",
    "--task nope": "--task: unknown task 'nope'",
    "--name a/b": "--name: 'a/b' is not allowed here",
    "--version ..": "--version: '..' is not allowed here",
    "--state y": "--state: 'y' is not OUT=IN",
    "--state y=x": "--state y=x: the output is float32 of shape",
    "--state foo=x": "--state foo=x: names no output and input of the model",
    "--fix x=1": "--fix: 'x' cannot be fixed: it is no scalar input",
    "--fix x": "--fix: 'x' is not INPUT=VALUE",
    "--fix x=one": "--fix: could not convert",
    "-p nope": "unknown profile 'nope'",
    "-p nowhere.toml": "nowhere.toml: cannot be read",
    "--base nowhere": "nowhere/oci-layout: cannot be read",
    "--data": "argument --data: expected one argument",
    "--frobnicate": "unrecognized arguments: --frobnicate",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_option_that_is_wrong(convert, options):
    assert OPTIONS[options] in convert(*options.split())


def test_profile_is_required(refused, classifier_source, tmp_path):
    assert "-p/--profile" in refused("convert", classifier_source, "-o", tmp_path / "out")


def test_fixed_value_must_be_of_the_inputs_type(convert, tmp_path):
    source = models.branching(tmp_path / "branching")
    assert "--fix mode: 1.5 is no int64" in convert("--fix", "mode=1.5", source=source)


def test_fixed_value_and_data_must_agree(convert, tmp_path):
    source = models.branching(tmp_path / "branching")
    x = np.zeros((4, 1, 160), np.float32)
    np.savez(tmp_path / "data.npz", x=x, mode=np.zeros(4, np.int64))
    found = convert("--fix", "mode=1", "--data", tmp_path / "data.npz", source=source)
    assert "input 'mode' is 0 here, and fixed to 1" in found


def test_output_that_is_no_bundle_is_left_alone(refused, classifier_source, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    for out in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        options = ("-o", out, "-p", "x86-64", "--force")
        assert "exists and is not a bundle" in refused("convert", classifier_source, *options)


def test_output_below_a_file_is_failed_work(refused, classifier_source, tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    found = refused("convert", classifier_source, "-o", out, "-p", "x86-64", code=1)
    assert re.search(r"file.*: cannot write: ", found)


@pytest.mark.parametrize("command", ["inspect", "bench", "run", "install"])
@pytest.mark.parametrize("kind", ["missing", "empty folder", "file"])
def test_bundle_that_is_none(refused, tmp_path, command, kind):
    bundle, given = tmp_path / "bundle", tmp_path / "x.npz"
    np.savez(given, x=X)
    if kind == "empty folder":
        bundle.mkdir()
    elif kind == "file":
        bundle.touch()
    words = {
        "run": ("run", bundle, "--input", given, "--output", tmp_path / "y.npz"),
        "install": ("store", "install", bundle, "--store", tmp_path / "store"),
    }
    assert "bundle/oci-layout: cannot be read" in refused(*words.get(command, (command, bundle)))


@pytest.mark.parametrize(
    "options",
    ["bench b --threads 0", "bench b --threads 1,x", "bench b --seconds 0", "bench b --seconds nan",
     "run b --text hi --threads -3", "run b --text hi --threads 99999"],
)  # fmt: skip
def test_number_that_is_none(refused, options):
    assert re.search(r"argument --\w+: '.*' is no number", refused(*options.split()))


def test_page_that_cannot_be_written_is_refused_before_measuring(refused, tmp_path):
    page = tmp_path / "nowhere" / "page.html"
    assert "nowhere: no such folder" in refused("bench", "bundle", "--html", page)
