"""Generated inputs respect what the graph says about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from converters.dataset import Array, Dataset
from converters.describe import find_states
from converters.generate import Meaning, generate, meaning
from converters.materialize import open_path
from edge_sdk.bundle.record import State
from edge_sdk.errors import DataError
from tests.converters.small_graphs import ACCUMULATOR, EMBEDDER, LINEAR, write

ONE_HOT = """
<ir_version: 8, opset_import: ["" : 17]>
one_hot (int32[N, 6] codes) => (float[N, 6, 5] y)
<int64 depth = {5}, float[2] values = {0, 1}>
{ wide = Cast<to = 7>(codes)  y = OneHot(wide, depth, values) }
"""

# Runs only with 16 kHz (as silero does): the table has no row for another rate.
RATE = """
<ir_version: 8, opset_import: ["" : 17]>
rate (float[N, 4] x, int64 sr) => (float[N, 4] y)
<int64 expected = {16000}, float[1, 4] table = {1, 1, 1, 1}>
{
  same = Equal(sr, expected)
  other = Not(same)
  row = Cast<to = 7>(other)
  gain = Gather(table, row)
  y = Mul(x, gain)
}
"""

# Reshape needs a length divisible by 64, so lengths near 32 cannot run.
FRAMES = """
<ir_version: 8, opset_import: ["" : 17]>
frames (float[batch, length] x) => (float[batch, a, b] y)
<int64[3] shape = {1, -1, 64}>
{ y = Reshape(x, shape) }
"""

IMAGE = """
<ir_version: 8, opset_import: ["" : 17]>
image (float[N, 3, H, W] pixels) => (float[N, 3, h, w] y)
{ y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(pixels) }
"""

LOGARITHM = """
<ir_version: 8, opset_import: ["" : 17]>
logarithm (float[N, 4] x) => (float[N, 4] y)
{ y = Log(x) }
"""

NEVER = """
<ir_version: 8, opset_import: ["" : 17]>
never (float[N, 4] x) => (float[a, b] y)
<int64[2] shape = {3, 5}>
{ y = Reshape(x, shape) }
"""


def made(text: str, folder: Path, states: tuple[State, ...] = (), seed: int = 0) -> Dataset:
    path = write(text, folder / "model.onnx")
    return generate(ir.load(path), open_path(path), states, count=6, seed=seed)


def every(data: Dataset, name: str) -> list[Array]:
    return [feeds[name] for sample in data.samples for feeds in sample]


def test_token_ids_index_the_table_and_masks_are_ones(tmp_path: Path) -> None:
    data = made(EMBEDDER, tmp_path)
    assert data.origin == "generated"
    ids = every(data, "input_ids")
    assert max(int(a.max()) for a in ids) == 6
    assert min(int(a.min()) for a in ids) == 0
    assert all((a == 1).all() for a in every(data, "attention_mask"))
    assert [a.shape for a in ids] == [a.shape for a in every(data, "attention_mask")]
    assert len({a.shape for a in ids}) > 1, "lengths vary where the model takes them"


def test_one_hot_depth_bounds_ids_behind_a_cast(tmp_path: Path) -> None:
    path = write(ONE_HOT, tmp_path / "model.onnx")
    assert meaning(ir.load(path).graph.inputs[0]) == Meaning(bound=5)
    codes = np.concatenate(every(made(ONE_HOT, tmp_path), "codes"))
    assert codes.dtype == np.int32
    assert (codes.min(), codes.max()) == (0, 4)


def test_a_scalar_takes_the_value_the_graph_compares_it_with(tmp_path: Path) -> None:
    assert {int(sr) for sr in every(made(RATE, tmp_path), "sr")} == {16000}


def test_sizes_that_fail_are_replaced_by_one_that_runs(tmp_path: Path) -> None:
    assert {a.shape for a in every(made(FRAMES, tmp_path), "x")} == {(1, 64)}


def test_images_lie_in_zero_to_one(tmp_path: Path) -> None:
    pixels = every(made(IMAGE, tmp_path), "pixels")
    assert {a.shape for a in pixels} == {(1, 3, 224, 224)}
    assert all(a.min() >= 0 and a.max() <= 1 for a in pixels)


def test_values_that_give_nan_are_replaced(tmp_path: Path) -> None:
    assert all((a > 0).all() for a in every(made(LOGARITHM, tmp_path), "x"))


def test_states_are_rolled_and_not_generated(tmp_path: Path) -> None:
    path = write(ACCUMULATOR, tmp_path / "model.onnx")
    states = (State(input="state", output="next"),)
    assert find_states(ir.load(path)) in ((), states)
    data = made(ACCUMULATOR, tmp_path, states)
    assert all(len(sample) > 1 for sample in data.samples)
    assert {name for sample in data.samples for feeds in sample for name in feeds} == {"x"}


def test_the_same_seed_gives_the_same_inputs(tmp_path: Path) -> None:
    digests = [made(LINEAR, tmp_path, seed=seed).digest for seed in (3, 3, 4)]
    assert digests[0] == digests[1] != digests[2]


def test_a_model_that_nothing_satisfies_asks_for_data(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        made(NEVER, tmp_path)
    text = str(error.value)
    assert "x (float32 [N, 4])" in text
    assert "Reshape" in text
    assert "--data" in text
