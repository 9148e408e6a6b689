"""Raising the opset changes no number."""

from __future__ import annotations

import numpy as np
import pytest

from converters.passes.base import Context
from converters.passes.upgrade_opset import UpgradeOpset
from tests.passes.models import graph, improved, ops, untouched

IMAGE = "(float[1,2,4,4] x) => (float[1,2,8,8] y)"
TWICE = {"s": np.array([1, 1, 2, 2], np.float32)}


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("op_type", "opset"), [("Upsample", 9), ("Resize", 10)])
def test_enlarging_keeps_the_sampling_of_old_opsets(op_type: str, opset: int, mode: str) -> None:
    model = graph(IMAGE, f'y = {op_type} <mode = "{mode}"> (x, s)', opset=opset, **TWICE)
    after = improved(UpgradeOpset(), model)
    assert after.opset_imports[""] == 17


def test_shrinking_to_the_nearest_stays_in_its_opset() -> None:
    half = np.array([1, 1, 0.6, 0.6], np.float32)
    signature = "(float[1,2,9,9] x) => (float[1,2,5,5] y)"
    model = graph(signature, 'y = Resize <mode = "nearest"> (x, s)', opset=10, s=half)
    context = Context()
    assert untouched(UpgradeOpset(context=context), model)
    assert "opset 10 kept" in context.notes[0]


def test_axes_move_from_attributes_to_inputs_in_branches_too() -> None:
    model = graph(
        "(bool c, float[1,4] x) => (float[4] y)",
        """
        y = If (c) <
            then_branch = t () => (float[4] a) { a = Squeeze <axes = [0]> (x) },
            else_branch = e () => (float[4] b) { n = Neg (x) b = Squeeze <axes = [0]> (n) }
        >
        """,
        opset=11,
    )
    for condition in (True, False):
        feeds = {"c": np.array(condition), "x": np.ones((1, 4), np.float32)}
        assert ops(improved(UpgradeOpset(), model, feeds))["Squeeze"] == 2
