"""Weights in files: what reading one costs, and how parts of tensors are checked."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

pytestmark = pytest.mark.converts
pytest.importorskip("onnx_ir")
gguf = pytest.importorskip("gguf")

from gguf import GGMLQuantizationType as Type  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

from converters.decoder.checkpoint import Checkpoint  # noqa: E402
from converters.decoder.families import Part  # noqa: E402
from converters.decoder.gguf_file import GgufFile  # noqa: E402
from converters.decoder.stored import StoredWeights, portions  # noqa: E402
from edge_sdk.errors import SourceError  # noqa: E402

SHAPE = (8192, 1024)


def store(folder: Path, kind: str):
    """A file with one large tensor, all the same."""
    value = np.full(SHAPE, 127, np.float32)  # exact in every type
    if kind == "safetensors":
        save_file({"x": value.astype(ml_dtypes.bfloat16)}, folder / "model.safetensors")
        return Checkpoint(folder)
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama")
    data = gguf.quants.quantize(value, Type[kind])
    writer.add_tensor("x", data, raw_dtype=Type[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GgufFile(folder / "m.gguf")


@pytest.mark.parametrize("kind", ["safetensors", "F16", "Q8_0"])
def test_reading_holds_one_copy_of_a_tensor(kind: str, tmp_path: Path) -> None:
    opened = store(tmp_path, kind)
    tracemalloc.start()
    try:
        value = opened.read("x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (value == 127).all()
    assert value.nbytes <= peak < 1.6 * value.nbytes  # a second copy would make it two


def test_portions_cover_every_row_once() -> None:
    for shape in ((3,), (10**5,), (1, 10**7), (5000, 999), (7, 3, 5)):
        rows = [row for part in portions(shape) for row in range(part.start, part.stop)]
        assert rows == list(range(shape[0]))


@pytest.mark.parametrize(
    ("rows", "fits"),
    [
        (None, False),
        (slice(0, 4), True),
        (slice(6, 10), False),
        (np.array([3, 2, 1, 0]), True),
        (np.array([3, 2, 1, 8]), False),
    ],
)
def test_rows_of_a_tensor_must_be_there(rows, fits: bool, tmp_path: Path) -> None:
    given = np.arange(16, dtype=np.float32).reshape(8, 2)
    save_file({"x": given}, tmp_path / "model.safetensors")

    def weights() -> StoredWeights:
        return StoredWeights(
            Checkpoint(tmp_path), {"a": Part("x", rows)}, {"a": (4, 2)}, where=tmp_path
        )

    if fits:
        np.testing.assert_array_equal(weights().read("a"), given[rows])
    else:
        with pytest.raises(SourceError, match=r"'x' of shape \[8, 2\] does not give a of"):
            weights()
