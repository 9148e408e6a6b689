"""The graph of a decoder: what it computes does not depend on how it is cut or stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.converts
pytest.importorskip("onnx_ir")

from converters.decoder import graph  # noqa: E402
from converters.decoder.weights import WeightFormat, WeightPlan  # noqa: E402
from tests.decoder.random_weights import RandomWeights, llama  # noqa: E402
from tests.decoder.running import Runner  # noqa: E402

IDS = np.random.default_rng(1).integers(0, 128, (1, 20)).tolist()


def run(model, folder: Path):
    return Runner(model, folder)(IDS, [20], range(20))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "block_size"), [(8, 32), (4, 32), (4, 128)])
def test_block_weights_compute_what_their_rounded_weights_say(
    tmp_path: Path, tied: bool, symmetric: bool, bits, block_size: int
) -> None:
    architecture = llama(tied=tied)
    weights = RandomWeights(architecture)
    exact = run(graph.build(architecture, weights, graph.FLOAT32), tmp_path)
    wanted = WeightFormat(bits, block_size, symmetric)
    rounded = run(graph.build(architecture, weights, WeightPlan(wanted)), tmp_path)
    assert relative(rounded, exact) < {8: 0.05, 4: 0.5}[bits]


def relative(found, wanted) -> float:
    return float(np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean()))
