"""The example engine and the profile that comes with it."""

from __future__ import annotations

import platform

import numpy as np
import onnx
import pytest

import edge_sdk as sdk
from edge_sdk.errors import EngineError, MissingEngineError
from edge_sdk.runtime.engine import SessionOptions, find_engine
from tests.passes.models import normal
from tests.plugins.conftest import expected

X = normal(3, 16, seed=5)
LOAD = """
import sys
import numpy as np
import edge_sdk

folder, profile = sys.argv[1:]
model = edge_sdk.load(f"{folder}/bundle", profile)
print(model.record.profile, model.record.engine.name, model.record.engine.version)
y = model.run({"x": np.load(f"{folder}/x.npy")})["y"]
np.save(f"{folder}/y.npy", y)
print(*sorted({"onnxruntime", "onnx"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, edge_sdk, squares):
    """Holds a bundle of ``squares`` for the example's profile and a built-in one, and inputs."""
    folder = tmp_path_factory.mktemp("converted")
    (folder / "recipe.toml").write_text('name = "fp32"')
    done = edge_sdk(
        *("convert", squares, "-o", folder / "bundle", "-p", "reference", "-p", "x86-64"),
        *("--recipe", folder / "recipe.toml"),
    )
    assert done.returncode == 0, done.stderr
    np.save(folder / "x.npy", X)
    return folder


@pytest.fixture
def engine(site, monkeypatch):
    monkeypatch.syspath_prepend(site)
    return find_engine("onnx-reference")


def test_a_variant_made_for_the_example_engine_runs_on_it(python, folder):
    done = python("-c", LOAD, folder, "reference")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"reference onnx-reference {onnx.__version__}", "onnx"]
    np.testing.assert_allclose(np.load(folder / "y.npy"), expected(X), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the example profile is for amd64")
def test_auto_prefers_an_engine_of_its_own_where_it_is_installed(python, folder):
    done = python("-c", LOAD, folder, "auto")
    assert done.stdout.startswith("reference onnx-reference"), done.stderr
    assert sdk.load(folder / "bundle").record.profile == "x86-64"  # not installed in this process


def test_without_the_plug_in_its_engine_is_named(folder):
    with pytest.raises(MissingEngineError, match="'onnx-reference' here"):
        sdk.load(folder / "bundle", "reference")


def test_the_signature_is_that_of_onnx_runtime(tmp_path, engine):
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    main (float[n, ?] x, string[2] t, bool b) => (double[n, ?] y, string[2] s) {
        y = Cast <to = 11> (x)
        s = Identity (t)
    }
    """
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    mine, other = (e.open(path, SessionOptions()) for e in (engine, find_engine("onnx")))
    assert (mine.inputs, mine.outputs) == (other.inputs, other.outputs)


def test_what_the_engine_cannot_do_is_an_engine_error(tmp_path, engine):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"m\.onnx"):
        engine.open(path, SessionOptions())
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    main (float[n] x, float[m] z) => (float[n] y) { y = Add (x, z) }
    """
    onnx.save(onnx.parser.parse_model(text), path)
    session = engine.open(path, SessionOptions())
    with pytest.raises(EngineError, match="Add"):
        session.run({"x": normal(2), "z": normal(3)})
