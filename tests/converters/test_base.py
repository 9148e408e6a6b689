"""``--base``: a fine-tune keeps recipe and scales and costs what changed (ADR 0007)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converters import convert
from converters.report import Report
from device_profiles.loader import profile_path
from edge_sdk.bundle.measurements import VariantReport
from edge_sdk.bundle.reader import Variant, open_bundle
from tests.passes.models import Array, graph, normal

# Its first provider is on no machine that runs this test, so that the rules decide.
PROFILE = "jetson-orin-nano"
WIDTH, LAYERS = 640, 4  # 400 KiB per layer in int8: a blob of its own


def weights() -> dict[str, Array]:
    scale = WIDTH**-0.5
    return {f"w{i}": normal(WIDTH, WIDTH, seed=i, scale=scale) for i in range(LAYERS)}


def write(folder: Path, name: str, changed: dict[str, Array] | None = None) -> Path:
    """A feed-forward network in which ``changed`` replaces weights."""
    body = " ".join(f"m{i} = MatMul (x{i}, w{i}) x{i + 1} = Relu (m{i})" for i in range(LAYERS - 1))
    last = f"y = MatMul (x{LAYERS - 1}, w{LAYERS - 1})"
    signature = f"(float[N,4,{WIDTH}] x0) => (float[N,4,{WIDTH}] y)"
    model = graph(signature, f"{body} {last}", **weights() | (changed or {}))
    path = folder / f"{name}.onnx"
    onnx.save(ir.to_proto(model), path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(path, x0=normal(24, 1, 4, WIDTH, seed=9))
    return path


def made(source: Path, data: Path, profile: str = PROFILE, **options: object) -> Report:
    out = source.with_suffix("")
    return convert(source, [profile], out, name="net", data=data, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def first(tmp_path_factory, data) -> Path:
    folder = tmp_path_factory.mktemp("first")
    made(write(folder, "v1"), data)
    return folder / "v1"


def weight_blobs(variant: Variant) -> set[str]:
    return {blob.digest for graph in variant.record.graphs for blob in graph.weights}


def only(report: Report) -> VariantReport:
    (variant,) = report.variants
    return variant.report


def test_changed_layer_costs_its_own_blob(first, data, tmp_path):
    tuned = weights()["w2"] + normal(WIDTH, WIDTH, seed=20, scale=0.002)
    source = write(tmp_path, "v2", {"w2": tuned})
    report = made(source, data, base=first, version="1.1.0")
    one, two = open_bundle(first).variant(PROFILE), open_bundle(tmp_path / "v2").variant(PROFILE)
    assert only(report).reason.startswith("recipe and scales of the base")
    assert (one.record.version, two.record.version) == ("1.0.0", "1.1.0")
    assert one.record.recipe.steps == two.record.recipe.steps
    assert "static-qdq" in {step.op for step in two.record.recipe.steps}
    assert len(weight_blobs(one)) == LAYERS
    assert len(weight_blobs(one) & weight_blobs(two)) == LAYERS - 1


def activation_scales(variant: Variant) -> list[float]:
    """The scalars of the graph in order: activation scales, for this network."""
    path = variant.blob_path(variant.record.graphs[0].parts[0].digest)
    found = onnx.load(path, load_external_data=False).graph.initializer
    arrays = [onnx.numpy_helper.to_array(t) for t in found if not t.external_data]
    return [float(a) for a in arrays if a.ndim == 0 and a.dtype == np.float32]


def test_scales_are_those_of_the_base(first, data, tmp_path):
    tuned = {"w0": weights()["w0"] * np.float32(1.1)}
    made(write(tmp_path, "alone", tuned), data)
    made(write(tmp_path, "based", tuned), data, base=first)
    one, alone, based = (
        activation_scales(open_bundle(path).variant(PROFILE))
        for path in (first, tmp_path / "alone", tmp_path / "based")
    )
    assert len(one) >= LAYERS
    assert based == one
    assert alone != one


def test_base_without_the_profile_is_searched_anew(first, data, tmp_path):
    report = made(write(tmp_path, "v2"), data, "board-512mb", base=first)
    assert "base" not in only(report).reason
    assert len(only(report).candidates) > 2


def test_base_that_loses_too_much_is_searched_anew(first, data, tmp_path):
    """Ten times the activations saturate at the base's ranges, and fit their own."""
    louder = weights()["w0"] * np.float32(10)
    report = made(write(tmp_path, "v2", {"w0": louder}), data, base=first)
    chosen = next(row for row in only(report).candidates if row.status == "chosen")
    assert chosen.name.startswith("int8-static")
    assert chosen.agreement is not None
    assert chosen.agreement.drop < 1e-3
    assert "the base's recipe lost: " in only(report).reason


def test_chain_of_bases_ends_where_it_began(first, data, tmp_path):
    """A base made with a base hands the same statistics on."""
    tuned = weights()["w2"] + normal(WIDTH, WIDTH, seed=20, scale=0.002)
    made(write(tmp_path, "v2", {"w2": tuned}), data, base=first)
    made(write(tmp_path, "v3"), data, base=tmp_path / "v2")
    one, three = open_bundle(first).variant(PROFILE), open_bundle(tmp_path / "v3").variant(PROFILE)
    assert weight_blobs(one) == weight_blobs(three)
    assert one.record.graphs == three.record.graphs


def test_base_that_is_slower_than_the_source_is_searched_anew(data, tmp_path):
    """What was forced once is no reason to ship it again."""
    slow = profile_path(PROFILE).read_text().replace("fp16 = 2.0", "fp16 = 0.5")
    assert "fp16 = 0.5" in slow
    profile, recipe = tmp_path / "slow.toml", tmp_path / "recipe.toml"
    profile.write_text(slow)
    recipe.write_text('name = "fp16"')
    source = write(tmp_path, "v1")
    forced = only(made(source, data, str(profile), recipe=recipe))
    assert (forced.chosen, forced.reason) == ("fp16", "forced by the recipe")
    report = only(made(write(tmp_path, "v2"), data, str(profile), base=tmp_path / "v1"))
    assert report.chosen != "fp16"
    assert report.reason.endswith("the base's recipe lost: slower than the source: 0.50x")


def test_source_as_it_is_stays_so(data, tmp_path):
    """Where nothing else holds the limits, a base and what follows it are equal to the byte."""
    profile = tmp_path / "plain.toml"
    text = profile_path(PROFILE).read_text()
    profile.write_text(re.sub(r"recipes = \[.*\]", 'recipes = ["int8-static"]', text))
    one = made(write(tmp_path, "v1"), data, str(profile), max_drop=0)
    two = made(write(tmp_path, "v2"), data, str(profile), max_drop=0, base=tmp_path / "v1")
    assert only(one).chosen == only(two).chosen == "source"
    graphs = [open_bundle(tmp_path / v).variant(PROFILE).record.graphs for v in ("v1", "v2")]
    assert graphs[0] == graphs[1]
