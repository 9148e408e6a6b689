"""What an encoder-decoder model would need, against what it needs."""

from __future__ import annotations

import pytest

from converters import convert
from converters.fit import fit
from converters.seq2seq.fit import fit_seq2seq
from device_profiles.loader import load_profile
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.errors import InputError
from tests.seq2seq.exports import read
from tests.seq2seq.fixtures.archive import unpack
from tests.seq2seq.inputs import FOLDER

pytestmark = pytest.mark.converts


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return unpack(FOLDER / "t5.tar.xz", tmp_path_factory.mktemp("t5"))


def test_size_and_memory_are_those_of_the_variant(t5, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('name = "fp32"\n')
    convert(t5, ["arm64"], tmp_path / "b", recipe=recipe)
    variant = open_bundle(tmp_path / "b").variants[0]
    report = fit(t5, ["arm64"], {"input": 128, "output": 64})
    found = next(f for f in report.profiles[0].families if f.recipe == "fp32")
    assert found.size_bytes.value == pytest.approx(
        sum(
            part.size for graph in variant.record.graphs for part in (*graph.parts, *graph.weights)
        ),
        rel=0.15,
    )
    memory = variant.record.memory
    assert found.peak_bytes.value == pytest.approx(
        memory.peak + 2 * 64 * memory.kv_per_token,
        rel=0.1,  # of the nodes that are fused
    )
    assert found.decoder is not None
    assert found.decoder.tokens_per_second.value > 0


def test_longer_outputs_take_more_memory_and_longer_inputs_more_time(t5):
    def of(**dimensions: int):
        return fit(t5, ["board-512mb"], dimensions).profiles[0].families[0]

    assert of(output=64).peak_bytes.value > of(output=2).peak_bytes.value
    assert of(input=256).decoder.ttft_ms.value > of(input=8).decoder.ttft_ms.value


def test_model_of_sound_reads_a_window(tmp_path):
    source = read("whisper", tmp_path)
    report = fit_seq2seq(source, [load_profile("x86-64")], {}, 0.0)
    assert report.dimensions == {"output": 24}
    assert report.unknown_nodes == 0
    assert report.profiles[0].likely


def test_board_that_runs_no_onnx_is_told_why(t5):
    (profile,) = fit(t5, ["armv7-512mb"]).profiles
    assert profile.likely is None
    assert "none of its engines" in profile.note


@pytest.mark.parametrize("dimensions", [{"context": 8}, {"output": 65}, {"input": 0}])
def test_dimension_that_is_not_there_is_refused(t5, dimensions):
    with pytest.raises(InputError) as caught:
        fit(t5, ["arm64"], dimensions)
    assert "input and output" in str(caught.value.remedy)
