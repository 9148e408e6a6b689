"""Models beyond the 2 GB that protobuf can hold."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from device_profiles.loader import profile_path
from edge_sdk.bundle.reader import open_bundle
from tests.cli.conftest import answer, edge_sdk

pytestmark = pytest.mark.slow

WIDTH, LAYERS = 8192, 9  # 256 MiB per layer, 2.25 GiB in all
PROFILE = "x86-64"


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Iterator[Path]:
    """A chain of matrices with two diagonals; its weights lie in an external file."""
    folder = tmp_path_factory.mktemp("large")
    weights = []
    with (folder / "weights.bin").open("wb") as file:
        for i in range(LAYERS):
            array = np.eye(WIDTH, dtype=np.float32) + np.eye(WIDTH, k=i + 1, dtype=np.float32) / 2
            tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=array.shape)
            tensor.data_location = TensorProto.EXTERNAL
            place = {"location": "weights.bin", "offset": file.tell(), "length": array.nbytes}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            file.write(array)
            weights.append(tensor)
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(LAYERS)]
    ends = [helper.make_tensor_value_info(f"x{i}", 1, ["N", WIDTH]) for i in (0, LAYERS)]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    imports = [helper.make_opsetid("", 17)]
    (folder / "large.onnx").write_bytes(
        helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    )
    yield folder / "large.onnx"
    shutil.rmtree(folder)


def check(source: Path, bundle: Path) -> None:
    """The bundle is whole, and gives what the source gives."""
    open_bundle(bundle).verify()
    x = np.random.default_rng(0).standard_normal((1, WIDTH)).astype(np.float32)
    np.savez(bundle.parent / "x.npz", x0=x)
    files = ("--input", bundle.parent / "x.npz", "--output", bundle.parent / "y.npz")
    assert edge_sdk("run", bundle, "--profile", PROFILE, *files).returncode == 0
    expected = x
    for i in range(LAYERS):
        shifted = np.zeros_like(expected)
        shifted[:, i + 1 :] = expected[:, : -i - 1] / 2
        expected = expected + shifted
    with np.load(bundle.parent / "y.npz") as outputs:
        found = outputs[f"x{LAYERS}"]
    assert found.ravel() @ expected.ravel() > 0.995 * np.linalg.norm(found) * np.linalg.norm(
        expected
    )


def test_source_is_beyond_protobuf(large):
    assert (large.parent / "weights.bin").stat().st_size > onnx.checker.MAXIMUM_PROTOBUF


def test_prediction_takes_seconds(large):
    found = answer("fit", large, "-p", PROFILE)
    assert found["size_bytes"] > onnx.checker.MAXIMUM_PROTOBUF


def test_forced_recipe(large):
    recipe, bundle = large.parent / "recipe.toml", large.parent / "forced"
    recipe.write_text('name = "int8-stored"')
    report = answer("convert", large, "-o", bundle, "-p", PROFILE, "--recipe", recipe)
    [row] = [r for r in report["variants"][0]["report"]["candidates"] if r["status"] == "chosen"]
    assert row["size_bytes"] < 0.26 * large.parent.joinpath("weights.bin").stat().st_size
    check(large, bundle)


def test_search(large):
    bundle = large.parent / "searched"
    text = profile_path(PROFILE).read_text()
    few = large.parent / f"{PROFILE}.toml"  # each candidate takes most of a minute
    few.write_text(
        re.sub(r"recipes = .*", 'recipes = ["int8-dynamic", "int8-stored", "fp32"]', text)
    )
    report = answer("convert", large, "-o", bundle, "-p", few)
    rows = report["variants"][0]["report"]["candidates"]
    assert len(rows) > 3
    failed = {r["name"]: r["reason"] for r in rows if r["status"] == "failed"}
    assert list(failed) == ["fp32@litert"]
    assert "its weights take 2.4 GB, and a .tflite file has room for 2 GB" in failed["fp32@litert"]
    check(large, bundle)
