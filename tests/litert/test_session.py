"""Sessions over files that we lower, beyond what the engine's own small file can show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from converters.litert import lower
from edge_sdk.errors import EngineError
from edge_sdk.runtime.engine import Session, SessionOptions
from edge_sdk.runtime.engines.litert import LiteRtEngine
from edge_sdk.runtime.engines.litert_shared import is_available, open_shared
from tests.litert.agreement import error, expected, network

pytestmark = pytest.mark.converts

OPTIONS = SessionOptions(threads=1)
SHARED = pytest.param(True, marks=pytest.mark.skipif(not is_available(), reason="an older LiteRT"))


def picture(size: int) -> dict[str, NDArray[np.float32]]:
    values = np.random.default_rng(size).standard_normal((1, 4, size, size))
    return {"x": values.astype(np.float32)}


def opened(file: Path, *, shared: bool) -> Session:
    session = LiteRtEngine().open(file, OPTIONS)
    if not shared:
        return session
    weights = file.with_suffix(".weights")
    return open_shared(file, weights, session.inputs, session.outputs, OPTIONS)


@pytest.mark.parametrize("shared", [False, SHARED])
def test_sizes_that_fail_do_not_spoil_later_calls(shared: bool, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((4, 4, 3, 3)).astype(np.float32)
    body = """
        c = Conv <pads = [1, 1, 1, 1]> (x, w)
        a = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
        b = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric",
                    nearest_mode = "floor"> (a, , scales)
        y = Add (c, b)
    """
    scales = np.array([1, 1, 2, 2], np.float32)
    model = network(body, picture(8), free="023", w=weight, scales=scales)
    file = tmp_path / "skip.tflite"
    file.write_bytes(lower(model))
    session = opened(file, shared=shared)
    for size in (8, 5, 8, 12, 7, 16, 8, 5, 24):
        feeds = picture(size)
        if size % 2:
            with pytest.raises(EngineError):
                session.run(feeds)
            if not shared:  # as a file joined in a temporary folder is
                file.unlink(missing_ok=True)
        else:
            assert error(session.run(feeds), expected(model, feeds)) < 1e-5


@pytest.mark.parametrize("shared", [False, SHARED])
def test_scalar_output_is_an_array(shared: bool, tmp_path: Path) -> None:
    model = network("y = ReduceMean <keepdims = 0> (x)", picture(8))
    file = tmp_path / "mean.tflite"
    file.write_bytes(lower(model))
    result = opened(file, shared=shared).run(picture(8))["y"]
    assert isinstance(result, np.ndarray)
    assert result.shape == ()
    assert result == pytest.approx(picture(8)["x"].mean(), abs=1e-6)
