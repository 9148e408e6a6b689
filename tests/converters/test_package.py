"""What goes around a graph: steps before and after it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from converters.materialize import open_path
from converters.package import processing
from converters.source import open_source
from tests.passes.models import graph, normal


def steps_after(folder: Path, body: str) -> list[str]:
    """Names of the steps after a classifier whose last nodes are ``body``."""
    model = graph("(float[N,8] x) => (float[N,3] y)", f"l = MatMul (x, w) {body}", w=normal(8, 3))
    onnx.save(ir.to_proto(model), folder / "classifier.onnx")
    (folder / "labels.json").write_text(json.dumps(["a", "b", "c"]))
    source = open_source(folder / "classifier.onnx")
    outputs = open_path(source.path).run({"x": normal(4, 8, seed=1)})
    before, after = processing(source, [outputs])
    assert before == ()
    return [step.op for step in after]


def test_logits_get_a_softmax(tmp_path):
    assert steps_after(tmp_path, "y = Identity (l)") == ["softmax", "labels"]


@pytest.mark.parametrize(
    "body",
    [
        "y = Softmax (l)",
        "p = Softmax (l) y = Identity (p)",
        "p = Sigmoid (l) y = Clip (p)",
        "e = Exp (l) s = ReduceSum (e, axes) y = Div (e, s)",
    ],
)
def test_probabilities_stay_as_they_are(tmp_path, body):
    body = f"axes = Constant <value_ints = [1]> () {body}" if "axes" in body else body
    assert steps_after(tmp_path, body) == ["labels"]
