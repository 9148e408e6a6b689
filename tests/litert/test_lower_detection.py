"""The last operators of detectors: the best boxes, and what belongs to them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converters.litert import lower
from edge_sdk.errors import UnsupportedOperatorError
from tests.litert.agreement import assert_agrees, network

pytestmark = pytest.mark.converts


@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize("overlap", [0.0, 0.3])
@pytest.mark.parametrize("boxes", [1, 25])
def test_non_max_suppression(center: int, overlap: float, boxes: int) -> None:
    rng = np.random.default_rng(boxes)
    feeds = {
        "b": (rng.random((2, boxes, 4)) * 10).astype(np.float32),  # corners in any order
        "s": rng.random((2, 3, boxes)).astype(np.float32),
    }
    model = network(
        f"y = NonMaxSuppression<center_point_box = {center}>(b, s, most, overlap, lowest)",
        feeds,
        "y:int64",
        most=np.array([7]),
        overlap=np.array([overlap], np.float32),
        lowest=np.array([0.2], np.float32),
    )
    assert_agrees(model, feeds)


def test_suppression_over_an_open_number_of_boxes() -> None:
    rng = np.random.default_rng(2)

    def some(boxes: int) -> dict[str, np.ndarray]:
        b, s = rng.random((1, boxes, 4)), rng.random((1, 2, boxes))
        return {"b": b.astype(np.float32), "s": s.astype(np.float32)}

    feeds = some(9)
    body = "y = NonMaxSuppression(b, s, most, overlap)"
    constants = {"most": np.array([2**63 - 1]), "overlap": np.array([0.4], np.float32)}
    model = network(body, feeds, "y:int64", **constants)
    for value, shape in zip(model.graph.inputs, ((1, "n", 4), (1, 2, "n")), strict=True):
        value.shape = ir.Shape(shape)
    assert_agrees(model, feeds, some(4), some(30))


def test_suppression_with_thresholds_known_only_at_run_time_is_refused() -> None:
    feeds = {
        "b": np.ones((1, 3, 4), np.float32),
        "s": np.ones((1, 1, 3), np.float32),
        "t": np.ones(1, np.float32),
    }
    model = network("y = NonMaxSuppression(b, s, most, t)", feeds, "y:int64", most=np.array([2]))
    with pytest.raises(UnsupportedOperatorError, match="NonMaxSuppression"):
        lower(model)


@pytest.mark.parametrize("axis", [1, 2])
def test_elements_are_gathered_in_each_item_of_a_batch(axis: int) -> None:
    rng = np.random.default_rng(axis)

    def some(batch: int) -> dict[str, np.ndarray]:
        at = rng.integers(-3, 3, (batch, 3, 4))
        return {"x": rng.standard_normal((batch, 5, 4)).astype(np.float32), "at": at}

    feeds = some(2)
    model = network(f"y = GatherElements<axis = {axis}>(x, at)", feeds)
    for value in model.graph.inputs:
        value.shape = ir.Shape(("batch", *(value.shape or ())[1:]))
    assert_agrees(model, feeds, some(1), some(5))
