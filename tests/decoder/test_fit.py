from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from benchmarks.llm.model import SHAPES, write
from converters.decoder import costs, predict
from converters.decoder.candidates import specs_of
from converters.decoder.fit import SPREAD, ask, cache, family_fit, profile_fit
from converters.decoder.graph import build
from converters.decoder.memory import memory_plan
from converters.decoder.weights import WeightFormat, WeightPlan
from converters.decoder.workshop import shipped_bytes
from converters.fit import fit
from converters.fit_report import FitReport, load_spreads
from converters.source import open_source
from device_profiles.loader import load_profile
from edge_sdk.cli.main import main
from edge_sdk.errors import InputError

pytestmark = pytest.mark.converts
FORMATS = [WeightFormat(4, 32), WeightFormat(4, 128, False), WeightFormat(8, 32), WeightFormat(32)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("model"), SHAPES["tiny"])


@pytest.fixture(scope="module")
def source(folder):
    return open_source(folder)


@pytest.mark.parametrize("wanted", FORMATS, ids=str)
def test_predicted_size_is_that_of_the_graph(source, wanted):
    plan = WeightPlan(wanted)
    built = build(source.architecture, source.weights, plan)
    predicted = costs.shipped_bytes(source.architecture, plan)
    assert predicted == pytest.approx(shipped_bytes(built), rel=0.02)
    assert costs.node_count(source.architecture) == pytest.approx(built.graph.num_nodes(), rel=0.1)


def test_nodes_have_formats_of_their_own(source):
    narrow, wide = WeightFormat(4, 32), WeightFormat(8, 32)
    mixed = WeightPlan(narrow, {"head": wide, "layers.0.down": wide})
    by_node = {matrix.node: matrix for matrix in costs.matrices(source.architecture, mixed)}
    assert by_node["head"].wanted == by_node["layers.0.down"].wanted == wide
    assert by_node["layers.1.down"].wanted == narrow
    assert costs.table(source.architecture, mixed).wanted == wide  # tied to the head


def test_costs_name_the_graphs_nodes(source):
    plan = WeightPlan(WeightFormat(4, 32))
    graph = build(source.architecture, source.weights, plan).graph
    nodes = {node.name: node for node in graph}
    for cost in costs.node_costs(source.architecture, plan):
        attributes = {name: value.as_int() for name, value in nodes[cost.node].attributes.items()}
        assert cost.flops == 2 * attributes["K"] * attributes["N"]


def test_fewer_bits_need_less_memory_and_time(source):
    profile = load_profile("x86-64")
    plans = [WeightPlan(WeightFormat(bits, 128)) for bits in (4, 8, 32)]
    peaks = [memory_plan(source.architecture, plan).peak for plan in plans]
    tokens = [predict.token_seconds(source.architecture, plan, profile) for plan in plans]
    assert peaks == sorted(peaks) and tokens == sorted(tokens)


def test_long_prompts_take_longer_and_half_of_a_profile_too(source):
    profile = load_profile("x86-64")
    plan = WeightPlan(WeightFormat(4, 32))
    seconds = [
        predict.prompt_seconds(source.architecture, plan, profile, tokens)
        for tokens in (16, 64, 128, 512)
    ]
    assert seconds == sorted(seconds)
    board = load_profile("board-512mb")
    assert predict.prompt_seconds(source.architecture, plan, board, 16) > 4 * seconds[0]


def test_the_cache_is_int8_where_float_exceeds_the_budget(source):
    profile = load_profile("x86-64")
    question = ask(source, {"context": 1024}, load_spreads(SPREAD)["onnx"])
    (spec,) = specs_of("fp32", source.architecture, source.weights)
    kv, roomy = cache(question, profile, spec)
    assert kv == "float32"
    tight = msgspec.structs.replace(
        profile,
        memory=msgspec.structs.replace(profile.memory, model_budget_mib=(int(roomy.high) >> 20)),
    )
    kv, smaller = cache(question, tight, spec)
    assert kv == "int8"
    assert smaller.value < roomy.value


def test_a_family_is_shown_by_its_quickest_candidate(source):
    profile = load_profile("x86-64")
    question = ask(source, {}, load_spreads(SPREAD)["onnx"])
    found = profile_fit(question, profile)
    assert [family.recipe for family in found.families] == ["int4-block", "int8-block", "fp32"]
    shown = found.families[0]
    others = [
        family_fit(question, profile, spec)
        for spec in specs_of("int4-block", source.architecture, source.weights)
    ]
    assert shown.latency_ms.value == min(other.latency_ms.value for other in others)
    assert found.likely == "int4-block"


def test_weights_are_not_read(folder, tmp_path):
    before = fit(folder, ["x86-64"])
    blind = write(tmp_path, SHAPES["tiny"])
    weights = blind / "model.safetensors"
    data = weights.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    weights.write_bytes(data[:start] + bytes(len(data) - start))
    assert fit(blind, ["x86-64"]).profiles == before.profiles


@pytest.mark.parametrize(
    "dimensions", [{"context": 2049}, {"prompt": 64, "context": 64}, {"tokens": 3}, {"prompt": 0}]
)
def test_dimensions_out_of_range_are_refused(source, dimensions):
    with pytest.raises(InputError, match="prompt < context <= 2048"):
        ask(source, dimensions, load_spreads(SPREAD)["onnx"])


def test_json_is_one_documented_object(folder, capsys):
    assert main(["fit", str(folder), "-p", "arm64", "--dim", "context=512", "--json"]) == 0
    report = msgspec.json.decode(capsys.readouterr().out, type=FitReport)
    assert report.kind == "decoder"
    assert report.dimensions == {"context": 512, "prompt": 128}
    for family in report.profiles[0].families:
        assert family.decoder is not None
        for figure in (family.decoder.tokens_per_second, family.decoder.ttft_ms):
            assert 0 < figure.low <= figure.value <= figure.high
        assert family.latency_ms.value == pytest.approx(
            1e3 / family.decoder.tokens_per_second.value, rel=0.01
        )


def test_the_table_has_tokens_per_second(folder, capsys):
    assert main(["fit", str(folder), "-p", "x86-64", "-p", "jetson-orin-nano"]) == 0
    text = capsys.readouterr().out
    assert "tokens/s" in text and "first token ms" in text and "GFLOP per token" in text
    assert "without TensorrtExecutionProvider" in text


def test_a_360m_model_fits_a_board_of_512_mb_with_a_context_of_2048(source):
    shape = SHAPES["360m"]
    architecture = replace(
        source.architecture,
        layers=shape.layers,
        hidden=shape.hidden,
        intermediate=shape.intermediate,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocab=shape.vocab,
    )
    generation = msgspec.structs.replace(
        source.generation, layers=shape.layers, kv_heads=shape.kv_heads, head_dim=shape.head_dim
    )
    large = replace(source, architecture=architecture, generation=generation)
    question = ask(large, {"context": 2048}, load_spreads(SPREAD)["onnx"])
    found = profile_fit(question, load_profile("board-512mb"))
    assert found.likely == "int4-block"
    assert found.families[0].decoder is not None
    assert found.families[0].decoder.kv == "int8"
