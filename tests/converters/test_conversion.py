"""``converters.convert``: what holds for a whole conversion, whatever the model."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converters import convert
from converters.source import open_source
from device_profiles.loader import profile_path
from edge_sdk.bundle.measurements import Candidate
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.errors import BundleError, ConversionError, InputError, SourceError, WorkError
from tests.passes.models import graph, normal


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Two dense layers."""
    folder = tmp_path_factory.mktemp("source")
    model = graph(
        "(float[N,64] x) => (float[N,4,16] y)",
        "a = MatMul (x, w) b = Relu (a) c = MatMul (b, v) y = Reshape (c, shape)",
        w=normal(64, 128, seed=1, scale=0.1),
        v=normal(128, 64, seed=2, scale=0.1),
        shape=np.array([0, 4, 16]),
    )
    onnx.save(ir.to_proto(model), folder / "dense.onnx")
    return folder / "dense.onnx"


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def chosen(report) -> list[Candidate]:
    rows = [row for variant in report.variants for row in variant.report.candidates]
    return [row for row in rows if row.status == "chosen"]


def test_profiles_with_one_recipe_share_every_weight(source, tmp_path):
    stored = recipe(tmp_path, 'name = "int8-stored"')
    convert(source, ["x86-64", "arm64"], tmp_path / "b", recipe=stored)
    one, two = open_bundle(tmp_path / "b").variants
    assert one.record.graphs == two.record.graphs
    assert one.digest != two.digest  # each names its own profile


def test_progress_is_told_step_by_step(source, tmp_path):
    said: list[str] = []
    stored = recipe(tmp_path, 'name = "int8-stored"')
    convert(source, "x86-64", tmp_path / "b", recipe=stored, progress=said.append)
    assert said[0] == f"reading {source}"
    assert said[-1] == "x86-64: packing int8-stored"


def test_forced_recipe_ships_whatever_it_loses_and_says_so(source, tmp_path):
    four_bits = recipe(
        tmp_path,
        """
        name = "four"
        [[steps]]
        op = "block-weights"
        options = {bits = 4, block_size = 64, min_weight_elements = 1}
        """,
    )
    report = convert(source, ["x86-64"], tmp_path / "b", recipe=four_bits, max_drop=1e-9)
    [row] = chosen(report)
    assert (row.name, row.reason) == ("four", "forced by the recipe")
    assert row.agreement is not None
    assert row.agreement.drop > 1e-9
    assert open_bundle(tmp_path / "b").variant("x86-64").record.recipe.forced


def test_limit_of_zero_leaves_what_loses_nothing(source, tmp_path):
    report = convert(source, ["x86-64"], tmp_path / "b", max_drop=0)
    [row] = chosen(report)
    assert row.agreement is not None
    assert row.agreement.drop == 0


def test_one_profile_that_fits_nothing_fails_all_and_writes_nothing(source, tmp_path):
    text = profile_path("x86-64").read_text()
    tight = tmp_path / "tight.toml"
    text = text.replace('name = "x86-64"', 'name = "tight"', 1)
    tight.write_text(text.replace("model_budget_mib = 4096", "model_budget_mib = 1"))
    stored = recipe(tmp_path, 'name = "int8-stored"')
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConversionError, match=r"profile 'tight'.*exceeds the budget of 1 MiB"):
        convert(source, ["arm64", str(tight)], tmp_path / "b")
    assert sorted(tmp_path.iterdir()) == before
    convert(source, [str(tight)], tmp_path / "b", recipe=stored)  # forced: the user knows better


def test_existing_bundle_is_replaced_only_when_asked(source, tmp_path):
    stored = recipe(tmp_path, 'name = "int8-stored"')
    convert(source, ["x86-64"], tmp_path / "b", recipe=stored)
    with pytest.raises(BundleError, match="the bundle exists"):
        convert(source, ["x86-64"], tmp_path / "b", recipe=stored, version="2.0.0")
    assert open_bundle(tmp_path / "b").version == "1.0.0"
    convert(source, ["x86-64"], tmp_path / "b", recipe=stored, version="2.0.0", overwrite=True)
    assert open_bundle(tmp_path / "b").version == "2.0.0"


@pytest.mark.parametrize(
    ("option", "given"), [("--context", {"context": 512}), ("--adapter", {"adapters": {"a": "a"}})]
)
def test_what_only_dialogue_models_have_is_refused(source, tmp_path, option, given):
    with pytest.raises(InputError, match="is no dialogue model") as caught:
        convert(source, ["x86-64"], tmp_path / "b", **given)
    assert caught.value.where == option


def test_full_disk_ends_a_conversion_and_is_no_candidates_fault(source, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (source.stat().st_size // 3, before[1]))
    try:
        with pytest.raises(WorkError, match="cannot write"):
            convert(source, ["x86-64"], tmp_path / "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my model (1).onnx", "my-model-1"),
        ("weights/model.onnx", "weights"),
        ("模型.onnx", "model"),
    ],
)
def test_bundle_is_named_after_the_file(source, tmp_path, file, name):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(source.read_bytes())
    assert open_source(path).name == name


@pytest.mark.parametrize(
    ("file", "text", "labels"),
    [
        ("labels.json", '["a", "b", "c"]', ("a", "b", "c")),
        ("config.json", '{"id2label": {"0": "a", "2": "c", "1": "b"}}', ("a", "b", "c")),
        ("config.json", '{"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}', ()),
        ("config.json", '{"id2label": {"cat": 0, "dog": 1, "cow": 2}}', ()),
        ("config.json", '{"id2label": ["a", "b", "c"]}', ()),
    ],
)
def test_class_names_lie_beside_the_model(tmp_path, file, text, labels):
    model = graph("(float[N,8] x) => (float[N,3] y)", "y = MatMul (x, w)", w=normal(8, 3))
    onnx.save(ir.to_proto(model), tmp_path / "model.onnx")
    (tmp_path / file).write_text(text)
    assert open_source(tmp_path / "model.onnx").labels == labels


def test_class_names_that_are_too_few_are_refused(tmp_path):
    model = graph("(float[N,8] x) => (float[N,3] y)", "y = MatMul (x, w)", w=normal(8, 3))
    onnx.save(ir.to_proto(model), tmp_path / "model.onnx")
    (tmp_path / "labels.json").write_text('["a", "b"]')
    with pytest.raises(SourceError, match=r"labels\.json: 2 names for 3 classes"):
        open_source(tmp_path / "model.onnx")
