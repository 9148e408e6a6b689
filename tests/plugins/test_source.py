"""The example source reader."""

from __future__ import annotations

import json

import numpy as np
import pytest

from converters.source import digest_files, open_source
from edge_sdk.runtime.opening import load

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
gate (float[batch, 2] x) => (float[batch, 2] y) <float[2, 2] w = {1.0, 2.0, 3.0, 4.0}> {
    product = MatMul (x, w)
    y = Relu (product)
}
"""


@pytest.fixture
def gate(tmp_path):
    path = tmp_path / "gate.onnxtxt"
    path.write_text(MODEL)
    return path


def test_the_example_source_is_converted_and_runs(tmp_path, edge_sdk, gate):
    bundle = tmp_path / "bundle"
    done = edge_sdk("convert", gate, "-o", bundle, "-p", "x86-64", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "gate"
    y = load(bundle, "x86-64").run({"x": np.float32([[1, 1], [1, -1]])})["y"]
    np.testing.assert_allclose(y, [[4, 6], [0, 0]], atol=0.05)


def test_the_digest_is_that_of_the_text(site, monkeypatch, gate):
    monkeypatch.syspath_prepend(site)
    source = open_source(gate)
    assert source.digest == digest_files([gate])
    assert source.path != gate


def test_a_syntax_error_names_the_file(tmp_path, edge_sdk, gate):
    gate.write_text(MODEL.replace("MatMul (", "MatMul "))
    done = edge_sdk("convert", gate, "-o", tmp_path / "bundle", "-p", "x86-64")
    assert done.returncode == 2
    assert "gate.onnxtxt: not ONNX text" in done.stderr
    assert not (tmp_path / "bundle").exists()
