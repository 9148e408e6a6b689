"""Graphs whose weights, small ones too, lie in another file: exporters write them so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from converters.materialize import complaint, open_path, save
from tests.passes.models import graph, normal

pytestmark = pytest.mark.converts


def test_small_weights_of_the_source_come_along_into_another_folder(tmp_path: Path) -> None:
    for name in ("source", "other"):
        (tmp_path / name).mkdir()
    model = graph(
        "(float[batch, 4] x) => (float[batch, 64] y)",
        "small = MatMul (x, a)\ny = MatMul (small, b)",
        a=normal(4, 16),
        b=normal(16, 64),
    )
    path = tmp_path / "source" / "model.onnx"
    ir.save(model, path, external_data="model.onnx.data", size_threshold_bytes=0)
    loaded = ir.load(path)
    weights = loaded.graph.initializers.values()
    assert all(isinstance(value.const_value, ir.ExternalTensor) for value in weights)
    saved = save(loaded, tmp_path / "other", "copy")
    assert complaint(saved) is None
    feeds = {"x": np.ones((2, 4), np.float32)}
    np.testing.assert_array_equal(open_path(saved).run(feeds)["y"], open_path(path).run(feeds)["y"])
