from __future__ import annotations

import json

import msgspec
import numpy as np
import onnx
import pytest

from benchmarks.models import encoder, resnet8, visual_wake_words
from converters import predict
from converters.fit import default_dimensions, fit, gather, profile_fit
from converters.fit_report import FitReport, Range, Ratios, judge, load_spreads
from converters.materialize import save
from converters.passes.base import Context, build
from converters.recipes import families
from converters.source import open_source
from converters.target import HOST_ENGINES, targets
from converters.workshop import shipped_bytes
from device_profiles.loader import load_profile
from edge_sdk.bundle.record import Recipe, TensorSpec
from edge_sdk.cli.main import main
from edge_sdk.errors import InputError
from tests.converters.small_graphs import write

MIB = 2**20


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return encoder(tmp_path_factory.mktemp("encoder"))


def test_predicted_size_is_that_of_the_converted_graph(model, tmp_path):
    profile = load_profile("x86-64")
    source = open_source(model)
    facts = gather(source, {"batch": 1, "tokens": 16})
    onnx = targets(profile)[0]
    for family, variants in families(profile, profile.quantization["encoder"], onnx, ()).items():
        recipe = variants[0]
        graph, context = source.model.clone(), Context()
        if "smooth" in family or "static" in family:
            continue  # need calibration; the passes that shrink are those of int8-dynamic
        for graph_pass in build(Recipe(name=family, steps=recipe.steps), context):
            graph = graph_pass(graph).model
        folder = tmp_path / family
        folder.mkdir()
        size = shipped_bytes(graph, save(graph, folder))
        predicted = predict.shipped_bytes(
            source.size_bytes, facts.weights, predict.treatment(recipe)
        )
        assert predicted == pytest.approx(size, rel=0.05), family


def test_narrow_recipes_are_predicted_smaller_and_lighter_than_fp32(model):
    (found,) = fit(model, ["x86-64"]).profiles
    by_name = {family.recipe: family for family in found.families}
    fp32, smooth = by_name["fp32"], by_name["int8-smooth"]
    assert smooth.size_bytes.value < fp32.size_bytes.value / 3
    assert smooth.peak_bytes.value < fp32.peak_bytes.value
    assert smooth.latency_ms.value < fp32.latency_ms.value / 1.5
    # Stored weights are small in the file only: all their forms are in memory at once.
    assert by_name["int8-stored"].peak_bytes.value > fp32.peak_bytes.value


def test_convolutions_stay_float_under_dynamic_int8(tmp_path):
    facts = gather(open_source(visual_wake_words(tmp_path)), {"batch": 1})
    dynamic = predict.Treatment({"dense": 8}, stored=8)
    static = predict.Treatment({"dense": 8, "conv": 8}, stored=8)
    assert predict.speedup(facts.weights, dynamic, 2.0) < 1.01
    assert predict.speedup(facts.weights, static, 2.0) == pytest.approx(2.0)
    plan = predict.loaded(facts.plan, facts.weights, dynamic)
    assert plan.weights_private > predict.loaded(facts.plan, facts.weights, static).weights_private


def test_families_come_in_the_profiles_order_and_the_likely_one_fits(model):
    profile = load_profile("board-512mb")
    (found,) = fit(model, ["board-512mb"]).profiles
    recipes = profile.quantization["encoder"].recipes
    on_litert = [f"{name}@litert" for name in recipes if name != "int8-stored"]
    assert [f.recipe for f in found.families] == [*recipes, *on_litert]
    likely = next(f for f in found.families if f.recipe == found.likely)
    assert likely.verdict != "no"
    assert found.memory_headroom_bytes == found.memory_budget_bytes - int(likely.peak_bytes.value)


def test_nothing_is_likely_where_nothing_fits(model):
    profile = load_profile("x86-64")
    tiny = msgspec.structs.replace(
        profile, memory=msgspec.structs.replace(profile.memory, model_budget_mib=32)
    )
    source = open_source(model)
    found = profile_fit(gather(source, default_dimensions(source.inputs)), tiny, load_spreads())
    assert found.likely is None
    assert {family.verdict for family in found.families} == {"no"}
    assert "MiB of memory short" in found.families[0].reason


@pytest.mark.parametrize(
    ("value", "high", "verdict"), [(90, 100, "fits"), (90, 101, "tight"), (101, 120, "no")]
)
def test_the_verdict_asks_whether_the_whole_range_holds(value, high, verdict):
    predicted = Range(value=value * MIB, low=80.0 * MIB, high=high * MIB)
    found, reason = judge(predicted, 100 * MIB, "memory")
    assert found == verdict
    assert f"{abs(100 - value)} MiB of memory" in reason


def test_slower_processors_are_predicted_slower(tmp_path):
    report = fit(resnet8(tmp_path), ["x86-64", "board-512mb"])
    fast, slow = (profile.families[-1].latency_ms.value for profile in report.profiles)
    assert slow > 5 * fast


def test_default_dimensions_are_batch_pixels_and_steps():
    specs = (
        TensorSpec(name="image", dtype="float32", shape=("n", 3, "height", "width")),
        TensorSpec(name="ids", dtype="int64", shape=("n", "tokens")),
    )
    found = default_dimensions(specs)
    assert found == {"n": 1, "height": 224, "width": 224, "tokens": 128}
    frames = TensorSpec(name="x", dtype="float32", shape=("seq_len", 1, 64))
    assert default_dimensions((frames,)) == {"seq_len": 128}


def test_a_model_that_cannot_run_is_still_predicted(tmp_path):
    # Reshape to 7 columns fails for every n; a prediction does not run the model.
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    broken (float[n, 4] x) => (float[n, 2] y)
    <float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}, int64[1] seven = {7}>
    { z = Reshape(x, seven) y = MatMul(x, w) }
    """
    report = fit(write(text, tmp_path / "m.onnx"), ["x86-64"], {"n": 3})
    assert report.gflops == pytest.approx(2 * 3 * 4 * 2 / 1e9)


def test_a_graph_that_computes_nothing_takes_the_time_of_a_call(tmp_path):
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    constant () => (float[2] y) <float[2] w = {1, 2}> { y = Identity(w) }
    """
    (found,) = fit(write(text, tmp_path / "m.onnx"), ["x86-64"]).profiles
    assert found.likely
    assert all(family.latency_ms.value > 0 for family in found.families)


def test_names_of_classes_in_the_graph_are_no_weights(tmp_path):
    labels = onnx.numpy_helper.from_array(np.array(["cat", "dog"], object), "labels")
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    named (float[n, 2] x) => (string[n] y)
    { i = ArgMax<axis = 1, keepdims = 0>(x) y = Gather(labels, i) }
    """
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(labels)
    onnx.save(model, tmp_path / "m.onnx")
    (found,) = fit(tmp_path / "m.onnx", ["x86-64"]).profiles
    assert found.families


def test_weights_are_not_read(tmp_path):
    """External data of the right size but without content give the same prediction."""
    source = open_source(resnet8(tmp_path))
    folder = tmp_path / "external"
    folder.mkdir()
    path = save(source.model.clone(), folder)
    before = fit(path, ["x86-64"])
    data = folder / "model.bin"
    data.write_bytes(bytes(data.stat().st_size))
    after = fit(path, ["x86-64"])
    assert after.profiles == before.profiles


def test_an_unknown_dimension_names_those_there_are(model):
    with pytest.raises(InputError, match="batch, tokens"):
        fit(model, ["x86-64"], {"length": 12})


def test_the_committed_spread_comes_from_measurements():
    spreads = load_spreads()
    assert spreads.keys() == set(HOST_ENGINES.values())
    for spread in spreads.values():
        assert spread.samples > 20
        assert len(spread.models) > 5
        for ratios in (spread.size, spread.peak, spread.latency):
            assert isinstance(ratios, Ratios)
            assert 0 < ratios.p10 < ratios.p90 < 5


def test_every_engines_predictions_have_its_own_range(model):
    source, wide = open_source(model), Ratios(p10=0.5, p90=3.0)
    spreads = load_spreads()
    spreads["litert"] = msgspec.structs.replace(spreads["litert"], size=wide, latency=wide)
    facts = gather(source, default_dimensions(source.inputs))
    found = profile_fit(facts, load_profile("x86-64"), spreads).families
    on_litert = {family.recipe for family in found if family.recipe.endswith("@litert")}
    assert on_litert
    for family in found:
        for figure in (family.size_bytes, family.latency_ms):
            is_wide = figure.high / figure.value == pytest.approx(3.0)
            assert is_wide == (family.recipe in on_litert)


def test_json_is_one_documented_object(model, capsys):
    assert main(["fit", str(model), "-p", "x86-64", "--dim", "tokens=32", "--json"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["schema"] == "org.edge-sdk.fit/1"
    report = msgspec.json.decode(printed, type=FitReport)
    assert report.dimensions == {"batch": 1, "tokens": 32}
    for family in report.profiles[0].families:
        for figure in (family.size_bytes, family.peak_bytes, family.latency_ms):
            assert 0 < figure.low <= figure.value <= figure.high


def test_the_table_names_ranges_and_where_they_come_from(model, capsys):
    assert main(["fit", str(model), "-p", "jetson-orin-nano", "-p", "x86-64"]) == 0
    text = capsys.readouterr().out
    assert "likely" in text and "MiB" in text
    assert "without TensorrtExecutionProvider" in text
    assert all(spread.engine in text for spread in load_spreads().values())


def test_a_wrong_dimension_option_is_refused(model, capsys):
    assert main(["fit", str(model), "-p", "x86-64", "--dim", "tokens"]) == 2
    assert "NAME=SIZE" in capsys.readouterr().err


def test_a_block_recipe_pays_for_its_scales():
    weight = predict.Weight(1 << 20, 4, 1024, "dense", 0)
    four = predict.shipped_bytes(1 << 22, [weight], predict.Treatment({"dense": 4}, 8, 128))
    assert four == (1 << 19) + 4 * (1 << 20) // 128
    assert np.isclose(four / (1 << 22), 4.25 / 32)
