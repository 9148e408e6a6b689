"""Files of few nodes, and their comparison with LiteRT's own reference kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters import litert_import
from converters.materialize import opened
from edge_sdk.runtime.engine import Session, SessionOptions
from edge_sdk.runtime.engines.litert import LiteRtEngine
from tests.runtime.tflite_bytes import File

REFERENCE = SessionOptions(options={"resolver": "reference"})
OPTIMIZED = SessionOptions(optimize=False)


def one(
    op: str,
    shapes: Sequence[Sequence[int]],
    out: Sequence[int],
    options: str = "",
    constants: Sequence[Any] = (),
    dtype: str = "float32",
    out_dtype: str = "",
    outputs: int = 1,
    order: Sequence[int] = (),
    **values: Any,
) -> bytes:
    """A file of one node; its operands are inputs, then constants, or in another order."""
    file = File()
    inputs = [file.tensor(f"in{i}", shape, dtype) for i, shape in enumerate(shapes)]
    operands = inputs + [
        file.constant(f"constant{i}", np.asarray(values)) for i, values in enumerate(constants)
    ]
    operands = [operands[i] for i in order] or operands
    results = [file.tensor(f"out{i}", out, out_dtype or dtype) for i in range(outputs)]
    file.op(op, operands, results, options, **values)
    return file.write(
        {f"x{i}": index for i, index in enumerate(inputs)},
        {f"y{i}": index for i, index in enumerate(results)},
    )


def feeds_of(session: Session, seed: int = 0) -> dict[str, np.ndarray]:
    """Something for each input; free dimensions are 2."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for spec in session.inputs:
        shape = [size if isinstance(size, int) else 2 for size in spec.shape or ()]
        if spec.dtype.startswith("float"):
            feeds[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
        elif spec.dtype == "bool":
            feeds[spec.name] = rng.random(shape) < 0.5
        else:
            low = -99 if spec.dtype == "int8" else 1
            feeds[spec.name] = rng.integers(low, 5 if low > 0 else 99, shape).astype(spec.dtype)
    return feeds


def compare(
    path: Path, data: bytes, atol: float = 1e-5, kernels: SessionOptions = REFERENCE
) -> Counter[str]:
    """Both engines give the same; returns how often each ONNX operator was used."""
    path.write_bytes(data)
    reference = LiteRtEngine().open(path, kernels)
    model = litert_import.to_onnx(litert_import.read(path))
    used = Counter(node.op_type for node in model.graph)
    feeds = feeds_of(reference)
    expected = reference.run(feeds)
    with opened(model) as session:
        found = session.run(feeds)
        signatures = [[(s.name, s.dtype) for s in side.inputs] for side in (session, reference)]
        assert signatures[0] == signatures[1]
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        real = array.astype(np.float64)
        np.testing.assert_allclose(found[name].astype(np.float64), real, rtol=1e-4, atol=atol)
    return used
