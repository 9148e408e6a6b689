from __future__ import annotations

import onnx_ir as ir
import pytest

from benchmarks.llm.model import SHAPES, TINY, write
from converters.decoder import costs
from converters.decoder.graph import build
from converters.decoder.memory import kv_bytes, memory_plan, text_bytes
from converters.decoder.speed import footprint
from converters.decoder.weights import WeightFormat, WeightPlan
from converters.source import open_source
from edge_sdk.runtime.generation.timing import TIMED, prompt_of

pytestmark = pytest.mark.converts
INT4, INT8, FLOAT = WeightFormat(4, 32), WeightFormat(8, 128), WeightFormat(32)


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    return open_source(write(tmp_path_factory.mktemp("model"), TINY)).architecture


def test_weights_in_blocks_are_packed_with_scale_and_sum(architecture):
    matrices = costs.matrices(architecture, WeightPlan(INT4))
    blocks = sum(matrix.rows * matrix.width // 32 for matrix in matrices)
    plan = memory_plan(architecture, WeightPlan(INT4))
    assert plan.weights_private == blocks * (16 + 4 + 4)


def test_rows_are_padded_to_whole_blocks(architecture):
    wide = costs.matrices(architecture, WeightPlan(WeightFormat(4, 256)))[0]
    assert wide.width == 64
    assert wide.code_bytes == wide.rows * 128


def test_float_weights_are_packed_whole_and_float16_ones_widened(architecture):
    count = sum(m.rows * m.width for m in costs.matrices(architecture, WeightPlan(FLOAT)))
    half = WeightPlan(WeightFormat(16))
    assert memory_plan(architecture, WeightPlan(FLOAT)).weights_private == 4 * count
    assert memory_plan(architecture, half).weights_private == 4 * count
    assert memory_plan(architecture, half, half=True).weights_private == 2 * count


def test_the_cache_per_token_is_that_of_all_layers(architecture):
    plan = memory_plan(architecture, WeightPlan(INT4))
    assert plan.kv_per_token == kv_bytes(architecture) == 2 * 2 * 2 * 16 * 4
    half = memory_plan(architecture, WeightPlan(WeightFormat(16)), half=True)
    assert half.kv_per_token == plan.kv_per_token // 2


def test_longer_chunks_need_more_for_activations(architecture):
    short, long = (memory_plan(architecture, WeightPlan(INT4), chunk=n) for n in (16, 256))
    assert long.activations > short.activations
    assert long.reference_shapes == {"batch": 1, "sequence": 256}


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [INT4, INT8], ids=["int4-b32", "int8-b128"])
@pytest.mark.parametrize("shape", ["tiny", "135m", "360m"])
def test_predicted_peak_is_within_ten_percent(shape, wanted, tmp_path):
    source = open_source(write(tmp_path, SHAPES[shape]))
    plan = WeightPlan(wanted)
    graph = build(source.architecture, source.weights, plan)
    ir.save(graph, tmp_path / "model.onnx", external_data="model.data", size_threshold_bytes=1024)
    prompt = prompt_of(range(300, 500), source.architecture.context)
    found = footprint(tmp_path / "model.onnx", source.generation, prompt, threads=1)
    predicted = memory_plan(source.architecture, plan)
    tokens = len(prompt) + TIMED
    without_text = predicted.peak - text_bytes(source.architecture)
    assert without_text + tokens * predicted.kv_per_token == pytest.approx(
        found.peak_rss_bytes, rel=0.1
    )
