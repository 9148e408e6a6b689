"""The engine is a candidate (ADR 0018): both are tried, compared on themselves, and shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import edge_sdk
from converters import convert, sensitivity
from converters.measure import peak_rss
from converters.memory import TEXT_BYTES, candidate_plan
from converters.memory_litert import ENGINE_BYTES, STARTING_BYTES, litert_plan
from converters.recipes import families, prepare
from converters.report import Report
from converters.sampling import dataset_for
from converters.source import open_source
from converters.target import targets
from converters.workshop import Workshop
from device_profiles.loader import load_profile
from edge_sdk.bundle.measurements import Candidate
from edge_sdk.bundle.reader import Variant, open_bundle
from edge_sdk.errors import ConversionError
from tests.passes.models import graph, normal

WIDTH, HIDDEN = 256, 1280  # 320 KiB per layer in int8: a blob of its own


def write(folder: Path, name: str, first: np.ndarray | None = None) -> Path:
    """Two dense layers."""
    model = graph(
        f"(float[N,{WIDTH}] x) => (float[N,{WIDTH}] y)",
        "a = MatMul (x, v) b = Relu (a) y = MatMul (b, w)",
        v=normal(WIDTH, HIDDEN, seed=1, scale=0.05) if first is None else first,
        w=normal(HIDDEN, WIDTH, seed=2, scale=0.05),
    )
    onnx.save(ir.to_proto(model), folder / f"{name}.onnx")
    return folder / f"{name}.onnx"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("source"), "dense")


@pytest.fixture(scope="module")
def with_unknown_operator(tmp_path_factory) -> Path:
    """A network with an operator that LiteRT has nothing for."""
    body = "a = MatMul (x, w) y = Det (a)"
    model = graph("(float[N,8,8] x) => (float[N] y)", body, w=normal(8, 8))
    path = tmp_path_factory.mktemp("unknown") / "det.onnx"
    onnx.save(ir.to_proto(model), path)
    return path


def recipe(folder: Path, text: str) -> Path:
    (folder / "recipe.toml").write_text(text)
    return folder / "recipe.toml"


def rows(report: Report) -> dict[str, Candidate]:
    [variant] = report.variants
    return {row.name: row for row in variant.report.candidates}


def weights(variant: Variant) -> set[str]:
    [found] = variant.record.graphs
    return {blob.digest for blob in found.parts if blob.size > 256 * 1024}


def test_every_family_that_both_have_is_measured_on_both(source, tmp_path):
    found = rows(convert(source, "x86-64", tmp_path / "b"))
    for name in ("fp32", "int8-dynamic"):
        one, two = found[name], found[f"{name}@litert"]
        assert (one.engine, two.engine) == ("onnx", "litert")
        assert one.agreement is not None and two.agreement is not None
        assert one.latency_ms and two.latency_ms
    assert found["source"].engine == "onnx"


def test_variant_for_litert_is_a_file_in_parts_that_runs_and_tests_itself(source, tmp_path):
    forced = recipe(tmp_path, 'name = "int8-dynamic@litert"')
    report = convert(source, "x86-64", tmp_path / "b", recipe=forced)
    record = open_bundle(tmp_path / "b").variant("x86-64").record
    assert (record.engine.name, record.recipe.engine) == ("litert", "litert")
    [stored] = record.graphs
    assert (stored.format, stored.weights) == ("tflite", ())
    assert len(stored.parts) > 2
    assert rows(report)["int8-dynamic@litert"].status == "chosen"
    assert sum(blob.size for blob in stored.parts) == rows(report)[record.recipe.name].size_bytes
    model = edge_sdk.load(tmp_path / "b", "x86-64")
    model.self_test()
    x = normal(3, WIDTH, seed=4)
    [expected] = edge_sdk.load(_as_it_is(source, tmp_path), "x86-64").run({"x": x}).values()
    [found] = model.run({"x": x}).values()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


def _as_it_is(source: Path, folder: Path) -> Path:
    convert(source, "x86-64", folder / "plain", recipe=recipe(folder, 'name = "fp32"'))
    return folder / "plain"


def test_base_keeps_the_engine_and_what_did_not_change(source, tmp_path):
    forced = recipe(tmp_path, 'name = "int8-dynamic@litert"')
    convert(source, "arm64", tmp_path / "one", recipe=forced)
    tuned = normal(WIDTH, HIDDEN, seed=1, scale=0.05) * np.float32(1.01)
    tuned[:, 0] += 0.01
    report = convert(
        write(tmp_path, "tuned", tuned), "arm64", tmp_path / "two", base=tmp_path / "one"
    )
    assert report.variants[0].report.reason.startswith("recipe and scales of the base")
    one, two = (open_bundle(tmp_path / name).variant("arm64") for name in ("one", "two"))
    assert two.record.engine.name == "litert"
    assert len(weights(one)) == len(weights(two)) == 2
    assert len(weights(one) & weights(two)) == 1


def test_same_source_and_recipe_give_the_same_file(source, tmp_path):
    forced = recipe(tmp_path, 'name = "int8-smooth@litert"')
    for name in ("one", "two"):
        convert(source, "x86-64", tmp_path / name, recipe=forced, name="dense")
    one, two = (open_bundle(tmp_path / name).variant("x86-64") for name in ("one", "two"))
    assert one.digest == two.digest


def test_board_that_has_only_litert_gets_a_variant(source, tmp_path):
    report = convert(source, "armv7-512mb", tmp_path / "b")
    found = rows(report)
    record = open_bundle(tmp_path / "b").variant("armv7-512mb").record
    assert record.engine.name == "litert"
    assert found["source"].status == "rejected"
    assert "no engine of the profile runs it" in found["source"].reason
    assert not report.variants[0].report.decisive


def test_what_an_engine_cannot_compute_is_a_row_with_node_operator_and_remedy(
    with_unknown_operator, tmp_path
):
    found = rows(convert(with_unknown_operator, "x86-64", tmp_path / "b"))
    reason = found["fp32@litert"].reason
    assert found["fp32@litert"].status == "failed"
    assert "node" in reason and "Det" in reason and "LiteRT" in reason and "remedy: " in reason
    [chosen] = [row for row in found.values() if row.status == "chosen"]
    assert chosen.engine == "onnx"


def test_where_it_blocks_all_candidates_it_is_the_error(with_unknown_operator, tmp_path):
    with pytest.raises(ConversionError, match=r"no variant holds the limits[\s\S]*Det"):
        convert(with_unknown_operator, "armv7-512mb", tmp_path / "b")


def test_engine_that_is_not_installed_is_one_row(source, tmp_path, monkeypatch):
    monkeypatch.setattr("edge_sdk.runtime.engines.litert.LIBRARIES", ("no_such_library",))
    found = rows(convert(source, "x86-64", tmp_path / "b"))
    [row] = [row for row in found.values() if row.engine == "litert"]
    assert (row.name, row.status) == ("*@litert", "failed")
    assert "not installed here" in row.reason


@pytest.mark.parametrize("family", ["fp32", "fp16-stored", "int8-dynamic", "int8-static"])
def test_predicted_peak_is_near_the_measured_one(source, tmp_path, family):
    opened = open_source(source)
    data = dataset_for(opened, None)
    workshop, profile = Workshop(opened, data, data, tmp_path), load_profile("x86-64")
    target = targets(profile)[1]
    prepared = prepare(profile, target)
    rules = profile.quantization[opened.kind]
    built = workshop.build(families(profile, rules, target, prepared)[family][0], prepared)
    call = data.samples[0][0]
    measured = peak_rss(built.path, call, built.host_engine)
    # An empty process differs by several MB from machine to machine; this model adds few.
    assert candidate_plan(built, {}).peak == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize("engine", [0, 1], ids=["onnx", "litert"])
def test_plan_of_a_process_that_takes_text_has_room_for_a_tokenizer(source, tmp_path, engine):
    opened = open_source(source)
    data, profile = dataset_for(opened, None), load_profile("x86-64")
    target = targets(profile)[engine]
    prepared = prepare(profile, target)
    rules = profile.quantization[opened.kind]
    workshop = Workshop(opened, data, data, tmp_path)
    built = workshop.build(families(profile, rules, target, prepared)["fp32"][0], prepared)
    arrays, text = (candidate_plan(built, {}, text=given) for given in (False, True))
    assert text.peak == arrays.peak + TEXT_BYTES


def test_a_small_model_on_litert_peaks_as_it_starts():
    def plan(width):
        signature = f"(float[1,4] x) => (float[1,{width}] y)"
        return litert_plan(graph(signature, "y = MatMul (x, w)", w=normal(4, width)), {})

    small, large = plan(4), plan(2**18)
    assert small.peak == STARTING_BYTES
    weight = 4 * 4 * 2**18
    assert ENGINE_BYTES <= large.engine < small.engine
    assert large.weights_private == weight
    assert large.peak > STARTING_BYTES


def test_recurrent_layers_are_int8_on_litert_and_can_be_given_back(tmp_path):
    model = graph(
        "(float[7,N,32] x) => (float[7,1,N,48] y)",
        "y = LSTM <hidden_size = 48> (x, w, r)",
        w=normal(1, 192, 32, scale=0.2),
        r=normal(1, 192, 48, seed=2, scale=0.2),
    )
    model.graph[0].name = "lstm"
    onnx.save(ir.to_proto(model), tmp_path / "lstm.onnx")
    opened = open_source(tmp_path / "lstm.onnx")
    data = dataset_for(opened, None)
    workshop, profile = Workshop(opened, data, data, tmp_path), load_profile("x86-64")
    target = targets(profile)[1]
    prepared = prepare(profile, target)
    found = families(profile, profile.quantization[opened.kind], target, prepared)
    small, large = (workshop.build(found[name][0], prepared) for name in ("int8-dynamic", "fp32"))
    assert large.size_bytes - small.size_bytes > 2.5 * 192 * (32 + 48)  # 3 bytes, less scales
    assert workshop.agreement(small).drop < 0.01
    [layer] = sensitivity.measure(workshop, small.recipe, prepared, 4)
    assert layer.group == ("lstm",) and layer.error > 0
    back = workshop.build(sensitivity.excluding(small.recipe, ["lstm"], "-mixed1"), prepared)
    assert back.size_bytes == large.size_bytes
