"""The toolchain ``onnx2tf``: a graph becomes a LiteRT file that computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from converters.toolchains import find
from converters.toolchains.interpreters import choose
from edge_sdk.errors import ToolchainError
from edge_sdk.runtime.engine import SessionOptions, find_engine
from tests.docs.runner import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.converts]

DIGITS = ROOT / "examples" / "digits"


def test_a_graph_becomes_a_file_that_computes_the_same(tmp_path: Path) -> None:
    environment = find("onnx2tf")
    try:
        choose(environment.toolchain.python, "onnx2tf")
    except ToolchainError as error:
        pytest.skip(error.message)
    model, file = DIGITS / "digits.onnx", tmp_path / "digits.tflite"
    before = model.read_bytes()
    environment.call("convert", {"model": str(model), "out": str(file)}, print, timeout=300)
    with np.load(DIGITS / "heldout.npz") as arrays:
        image = arrays["image"][:1]
    (expected,) = onnxruntime.InferenceSession(model).run(None, {"image": image})
    session = find_engine("litert").open(file, SessionOptions())
    found = session.run({"image": image.transpose(0, 2, 3, 1)})
    np.testing.assert_allclose(found["logits"], expected, atol=1e-5)
    assert model.read_bytes() == before
