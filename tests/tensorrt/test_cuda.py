"""What CUDA computes of the Jetson's variants, where a machine with CUDA is at hand.

Elsewhere these are skipped, with the reason: no CPU computes like a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from converters.passes.base import Context
from converters.passes.float16 import Float16
from converters.passes.static_qdq import StaticQdq
from device_profiles.loader import load_profile
from edge_sdk.runtime.engine import SessionOptions
from edge_sdk.runtime.engines.onnx import OnnxEngine
from tests.passes.networks import calibrated, samples, transformed, with_statistics
from tests.tensorrt.networks import (
    IMAGE,
    TOKENS,
    depthwise,
    residual,
    transformer,
    upsampling,
    written,
)

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
S8 = {"activation": "int8", "symmetric_activation": True, "float_bias": True}
OPTIONS = {
    key: value
    for key, value in load_profile("jetson-orin-nano").engines[0].options.items()
    if key.startswith(CUDA)
}

NETWORKS = [(residual, IMAGE), (depthwise, IMAGE), (upsampling, IMAGE), (transformer, TOKENS)]


@pytest.fixture(scope="module")
def cuda(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A GPU, and an onnxruntime that reaches it."""
    if CUDA not in onnxruntime.get_available_providers():
        pytest.skip(
            f"onnxruntime {onnxruntime.__version__} here has no {CUDA}: "
            "needs onnxruntime-gpu and an NVIDIA GPU"
        )
    folder = tmp_path_factory.mktemp("probe")
    options = SessionOptions(providers=(CUDA,), options=OPTIONS)
    session = OnnxEngine().open(written(residual(), folder), options)
    if CUDA not in session.providers:
        pytest.skip("onnxruntime-gpu is here, but CUDA or a GPU is not")


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize(("form", "tolerance"), [("fp32", 2e-3), ("fp16", 1e-2), ("int8", 5e-2)])
@pytest.mark.parametrize(("build", "shape"), NETWORKS)
def test_cuda_computes_what_the_cpu_does(
    build: Callable[[], ir.Model],
    shape: tuple[int, ...],
    form: str,
    tolerance: float,
    tmp_path: Path,
) -> None:
    model, statistics = calibrated(build, shape)
    if form == "fp16":
        model = transformed(Float16(Float16.options_type(), Context()), model)
    elif form == "int8":
        model = transformed(with_statistics(StaticQdq, statistics, S8), model)
    path = written(model, tmp_path)
    here = OnnxEngine().open(path, SessionOptions(providers=(CPU,)))
    there = OnnxEngine().open(path, SessionOptions(providers=(CUDA,), options=OPTIONS))
    assert there.providers[0] == CUDA
    for (feeds,) in samples(shape, 4, seed=3).samples:
        expected, found = here.run(feeds), there.run(feeds)
        for name, array in expected.items():
            share = float(np.abs(array).max())
            np.testing.assert_allclose(found[name], array, atol=tolerance * share, rtol=tolerance)
