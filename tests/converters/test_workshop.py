"""What a workshop makes of recipes: rewrites that hold, and candidates by their recipes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converters.materialize import open_path
from converters.metrics import Metric
from converters.package import resolved
from converters.recipes import prepare, step
from converters.sampling import dataset_for, seconds_per_sample
from converters.source import Source, open_source
from converters.target import targets
from converters.workshop import Workshop
from device_profiles.loader import load_profile
from edge_sdk.bundle.record import Recipe
from edge_sdk.errors import DataError, SourceError
from edge_sdk.runtime.engine import SessionOptions
from tests.passes.models import graph, normal


@pytest.fixture
def source(tmp_path) -> Source:
    body = "m = MatMul (x, w) y = Relu (m)"
    model = graph("(float[N,64] x) => (float[N,64] y)", body, w=normal(64, 64, scale=0.1))
    onnx.save(ir.to_proto(model), tmp_path / "model.onnx")
    return open_source(tmp_path / "model.onnx")


def workshop(source: Source, folder: Path, metric: Metric | None = None) -> Workshop:
    data = dataset_for(source, None)
    return Workshop(source, data, data, folder, metric=metric)


def test_rewrites_are_judged_by_their_outputs_and_not_by_the_task(source, tmp_path):
    """Some metrics say nothing about a few samples: an area needs two classes."""

    def needs_many(predictions, references) -> float:
        if len(predictions) < 8:
            raise DataError("too few")
        return 1.0

    metric = Metric("many", needs_many, needs_labels=False)
    profile = load_profile("x86-64")
    steps = prepare(profile, targets(profile)[0])
    _, context = workshop(source, tmp_path, metric).prepared(steps)
    assert context.notes == []


def test_graph_without_nodes_has_samples_to_compare(tmp_path):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])
    constant = onnx.numpy_helper.from_array(normal(2), "x")
    empty = onnx.helper.make_graph([], "empty", [], [value], [constant])
    imports = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(empty, opset_imports=imports, ir_version=8)
    onnx.save(model, tmp_path / "empty.onnx")
    source = open_source(tmp_path / "empty.onnx")
    assert seconds_per_sample(source, dataset_for(source, None)) > 0


def test_candidate_goes_by_the_name_it_was_asked_for(source, tmp_path):
    """A base bundle's recipe may be what a family of another profile comes to."""
    shop, steps = workshop(source, tmp_path), (step("dynamic-int8"),)
    first = shop.build(Recipe(name="first", steps=steps))
    second = shop.build(Recipe(name="second", steps=steps))
    assert (first.recipe.name, second.recipe.name) == ("first", "second")
    assert first.path == second.path


def test_statistics_of_smoothing_and_of_static_scales_are_both_kept(source, tmp_path):
    shop = workshop(source, tmp_path)
    smooth, static = step("smooth-quant"), step("static-qdq")
    both = shop.build(Recipe(name="both", steps=(smooth, static)))
    assert "x" in both.statistics.tensors
    assert resolved(both.statistics, both.recipe.steps).tensors["x"].channel_absmax is not None
    assert not shop.build(Recipe(name="stored", steps=(step("store-small"),))).statistics.tensors


def test_int8_activations_are_compared_as_a_board_computes_them(tmp_path):
    """The digits example has samples on which the other way gives other bits."""
    digits = Path(__file__).parents[2] / "examples" / "digits"
    source = open_source(digits / "digits.onnx")
    data = dataset_for(source, digits / "calibration.npz")
    shop = Workshop(source, data, data, tmp_path)
    profile = load_profile("arm64")
    prepared = prepare(profile, targets(profile)[0])
    steps = (*prepared, step("static-qdq", activation="int8"))
    static = shop.build(Recipe(name="static", steps=steps), prepared)
    images = np.load(digits / "heldout.npz")["image"][:50]
    as_arm, otherwise = (
        open_path(static.path, SessionOptions(options={"session.qdqisint8allowed": flag}))
        for flag in "10"
    )
    compared, arm, other = (
        np.concatenate([session.run({"image": image[None]})["logits"] for image in images])
        for session in (shop.open(static), as_arm, otherwise)
    )
    assert np.array_equal(compared, arm)
    assert not np.array_equal(compared, other), "else this shows nothing"


@pytest.mark.parametrize("scale", [0.5, 0])
def test_a_source_that_draws_numbers_is_refused_where_they_have_an_effect(tmp_path, scale):
    body = "noise = RandomNormalLike (x) some = Mul (noise, scale) y = Add (x, some)"
    drawing = graph("(float[N,4] x) => (float[N,4] y)", body, scale=np.float32(scale))
    onnx.save(ir.to_proto(drawing), tmp_path / "model.onnx")
    source = open_source(tmp_path / "model.onnx")
    if not scale:
        workshop(source, tmp_path)
        return
    with pytest.raises(SourceError, match=r"other outputs for the same inputs.*RandomNormalLike"):
        workshop(source, tmp_path)
