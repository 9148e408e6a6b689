"""Fourier transforms of fixed length become layers with the same spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from converters.passes.fourier_to_layers import FourierToLayers
from converters.passes.infer_shapes import InferShapes
from tests.passes.models import feeds_for, graph, improved, normal, ops, untouched

CONSTANTS: dict[str, Any] = {
    "step": np.array(5),
    "size": np.array(16),
    "window": np.hanning(16).astype(np.float32),
    "long": np.array(12),
    "short": np.array(6),
    "axis": np.array(-2),
    "first": np.array(0),
}


def model_of(body: str, inputs: str, rank: int = 4, opset: int = 20) -> ir.Model:
    sizes = ",".join(f"y{axis}" for axis in range(rank))
    model = graph(f"({inputs}) => (float[{sizes}] y)", body, opset=opset, **CONSTANTS)
    InferShapes()(model)
    return model


SHORT_TIME = {
    "window": "y = STFT (x, step, window)",
    "window and length": "y = STFT (x, step, window, size)",
    "length alone": "y = STFT (x, step, , size)",
    "both sides": "y = STFT <onesided = 0> (x, step, window)",
}


@pytest.mark.parametrize("form", SHORT_TIME)
@pytest.mark.parametrize("inputs", ["float[B,T] x", "float[B,T,1] x"])
def test_short_time_transform_is_a_convolution(form: str, inputs: str) -> None:
    model = model_of(SHORT_TIME[form], inputs)
    for samples in (16, 40):
        feeds = feeds_for(model, B=2, T=samples)
        after = improved(FourierToLayers(), model, feeds, atol=1e-4)
        assert ops(after)["Conv"] == 1
        assert "STFT" not in ops(after)


def test_short_time_transform_of_complex_numbers() -> None:
    model = model_of("y = STFT <onesided = 0> (x, step, window)", "float[B,40,2] x")
    assert "Conv" in ops(improved(FourierToLayers(), model, {"x": normal(2, 40, 2)}, atol=1e-4))


TRANSFORMS = {
    "forward": "y = DFT (x, , axis)",
    "one side": "y = DFT <onesided = 1> (x, , axis)",
    "padded": "y = DFT (x, long, axis)",
    "cut off": "y = DFT (x, short, axis)",
    "inverse": "y = DFT <inverse = 1> (x, , axis)",
}


REAL_AND_COMPLEX = [(form, 1) for form in TRANSFORMS] + [
    (form, 2) for form in TRANSFORMS if form != "one side"
]


@pytest.mark.parametrize(("form", "parts"), REAL_AND_COMPLEX)
def test_transform_along_an_axis_is_a_product(form: str, parts: int) -> None:
    model = model_of(TRANSFORMS[form], f"float[B,T,9,{parts}] x")
    after = improved(FourierToLayers(), model, {"x": normal(2, 3, 9, parts)}, atol=1e-4)
    assert ops(after)["MatMul"] == 1
    assert "DFT" not in ops(after)


def test_axis_is_an_attribute_in_older_opsets() -> None:
    model = model_of("y = DFT <axis = 2> (x)", "float[B,T,9,1] x", opset=17)
    assert "MatMul" in ops(improved(FourierToLayers(), model, {"x": normal(2, 3, 9, 1)}, atol=1e-4))


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        ("y = DFT (x, , axis)", "float[B,T,N,1] x"),
        ("y = DFT (x, , first)", "float[4,3,9,1] x"),
        ("y = STFT (x, n, window)", "float[B,T] x, int64 n"),
        ("y = STFT (x, step, w)", "float[B,T] x, float[16] w"),
    ],
)
def test_what_is_not_fixed_stays(body: str, inputs: str) -> None:
    assert untouched(FourierToLayers(), model_of(body, inputs))
