"""A decoder's conversion from source to bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import pytest

import edge_sdk
from benchmarks.llm import model as benchmark_model
from converters import convert
from converters.conversion import run
from converters.decoder import graphs, job
from converters.decoder.candidates import specs_for
from converters.decoder.graph import KvScales
from converters.decoder.job import DecoderJob
from converters.decoder.source import DecoderSource, limited
from converters.decoder.texts import read_texts
from converters.on_device import DeviceMeasurer
from converters.recipes import load_recipe
from converters.report import Report, VariantSummary, render_html, render_text
from converters.request import Request
from device_profiles.loader import load_profile, profile_path
from edge_sdk.bundle.reader import Bundle, Variant, open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.bundle.writer import BundleWriter
from edge_sdk.errors import ConversionError, InputError, RecipeError, SourceError
from tests.decoder.speakers import CONTEXT, speaker, write_text

pytestmark = pytest.mark.converts

# Not of this machine's ISA: its rules decide, and not a clock.
PROFILE = "arm64"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(speaker(), tmp_path_factory.mktemp("data") / "data.jsonl")


def made(
    source: DecoderSource,
    folder: Path,
    *,
    data: Path | None,
    profile: str = PROFILE,
    also: tuple[str, ...] = (),
    recipe: str | None = None,
    base: Bundle | None = None,
    max_drop: float | None = None,
    measurer: DeviceMeasurer | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> VariantSummary:
    """Converts without reading files: what ``convert`` does with what its reader gave."""
    folder.mkdir(exist_ok=True)
    forced, file = None, None
    if recipe is not None:
        file = folder / "recipe.toml"
        file.write_text(recipe)
        forced = load_recipe(file)
    out = folder / "bundle"
    request = Request(
        source=source.path, profiles=(profile, *also), out=out, data=data, max_drop=max_drop,
        version="1.1.0" if base else "1.0.0", recipe=file,
    )  # fmt: skip
    work = folder / "work"
    work.mkdir()
    with BundleWriter(out) as writer:
        job = DecoderJob(request, source, work, say, measurer)
        summaries = [
            job.variant(load_profile(name), writer, forced, base) for name in request.profiles
        ]
        writer.finish()
    return summaries[0]


def variant_in(folder: Path, profile: str = PROFILE) -> Variant:
    return open_bundle(folder / "bundle").variant(profile)


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory, data: Path
) -> tuple[Path, VariantSummary, list[str]]:
    folder = tmp_path_factory.mktemp("searched")
    said: list[str] = []
    return folder, made(speaker(), folder, data=data, max_drop=0.9, say=said.append), said


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    made(speaker(), folder, data=data, recipe='name = "int4-b32-gptq"')
    return folder


def test_every_candidate_is_in_the_report(searched) -> None:
    _, summary, _ = searched
    rows = {row.name: row for row in summary.report.candidates}
    source = speaker()
    tried = specs_for(load_profile(PROFILE), source.architecture, source.weights)
    assert {"int4-b32", "int4-b32-clip", "int4-b32-gptq", "int8-b32", "fp32"} <= rows.keys()
    assert {spec.name for spec in tried} == rows.keys()
    assert [row.status for row in rows.values()].count("chosen") == 1
    assert rows["fp32"].agreement.drop == 0
    figures = rows["int4-b32"].decoder
    assert figures.perplexity > figures.source_perplexity > 1
    assert figures.tokens_per_second > 0
    assert figures.ttft_ms > 0
    assert rows["int4-b32"].peak_rss_bytes == rows["int4-b32-clip"].peak_rss_bytes > 10 << 20
    assert rows["int4-b32"].agreement.drop == pytest.approx(
        figures.perplexity / figures.source_perplexity - 1, rel=1e-3
    )
    assert abs(rows["int8-b32"].agreement.drop) < 0.05 < rows["int4-b32"].agreement.drop


def test_report_shows_perplexity_and_speed_of_text(searched) -> None:
    _, summary, _ = searched
    report = Report(name="x", version="1", source="x", bundle="x", variants=(summary,), seconds=1.0)
    text, page = render_text(report), render_html(report)
    assert all(word in text for word in ("tok/s", "TTFT", "perplexity", "increase"))
    assert "cosine" not in text
    assert all(word in page for word in ("tok/s", "TTFT", "perplexity"))
    assert "Perplexity of the source in fp32" in text


def test_bundle_talks_and_passes_its_own_test(searched) -> None:
    folder, _, _ = searched
    model = edge_sdk.load(folder / "bundle", profile=PROFILE)
    assert model.self_test().cases > 0
    assert "w" in "".join(model.generate("w1 w2 w3", max_new_tokens=5, raw=True))


def test_bundle_predicts_as_well_as_the_report_says(searched, data: Path) -> None:
    """The evaluation half again, through the public API of the device side."""
    folder, summary, _ = searched
    texts = read_texts(speaker(), data, 10_000, 10_000)
    model = edge_sdk.load(folder / "bundle", profile=PROFILE)
    loss, count = 0.0, 0
    for window in texts.evaluation:
        logits = model.logits(window.tolist()).astype(np.float64)[:-1]
        chosen = logits[np.arange(len(logits)), window[1:]]
        loss += float((np.log(np.exp(logits).sum(axis=1)) - chosen).sum())
        count += len(window) - 1
    chosen_row = next(row for row in summary.report.candidates if row.status == "chosen")
    assert np.exp(loss / count) == pytest.approx(chosen_row.decoder.perplexity, rel=1e-3)


def test_record_says_what_a_device_needs(searched) -> None:
    folder, _, _ = searched
    record = variant_in(folder).record
    assert (record.kind, record.task) == ("decoder", "text-generation")
    assert record.generation == speaker().generation
    assert record.memory.kv_per_token > 0
    assert {file.path for file in record.files} >= {"tokenizer.json"}
    assert {case.graph for case in record.golden} == {"main", "main-kv8"}
    assert record.agreement.metrics["perplexity"][0] > 1


def test_cache_in_int8_costs_no_second_set_of_weights(fitted: Path) -> None:
    graphs = {graph.name: graph for graph in variant_in(fitted).record.graphs}
    main, kv8 = (graphs[name].weights for name in ("main", "main-kv8"))
    assert set(main) <= set(kv8)
    own = sum(blob.size for blob in set(kv8) - set(main))
    shape = speaker().generation
    assert own <= shape.layers * 2 * shape.kv_heads * shape.head_dim * 4, "scales of the cache"
    assert {spec.dtype for spec in graphs["main-kv8"].inputs if "past" in spec.name} == {"int8"}


def test_same_source_and_recipe_give_the_same_bytes(fitted: Path, data: Path, tmp_path) -> None:
    made(speaker(), tmp_path, data=data, recipe='name = "int4-b32-gptq"')
    assert variant_in(tmp_path).digest == variant_in(fitted).digest


def test_search_ends_at_the_same_bytes(searched, data: Path, tmp_path: Path) -> None:
    _, summary, _ = searched
    again = made(speaker(), tmp_path, data=data, max_drop=0.9)
    assert (again.digest, again.report.chosen) == (summary.digest, summary.report.chosen)


def test_forced_candidate_ships_whatever_it_loses(data: Path, tmp_path: Path) -> None:
    summary = made(speaker(), tmp_path, data=data, recipe='name = "int4-b64"', max_drop=0.0)
    (row,) = summary.report.candidates
    assert (row.name, row.status, row.reason) == ("int4-b64", "chosen", "forced by the recipe")
    assert row.agreement.drop > 0
    assert variant_in(tmp_path).record.recipe.forced


def test_recipe_may_name_formats_of_nodes(data: Path, tmp_path: Path) -> None:
    recipe = """
    name = "mine"
    [[steps]]
    op = "block-weights"
    options = {bits = 4, block_size = 64, symmetric = false, method = "clip"}
    [[steps]]
    op = "block-weights"
    options = {bits = 8, nodes = ["head", "layers.0.down"]}
    """
    summary = made(speaker(), tmp_path, data=data, recipe=recipe)
    assert {node.node for node in summary.unquantized} == {"head", "layers.0.down"}
    path = variant_in(tmp_path).blob_path(variant_in(tmp_path).record.graphs[0].parts[0].digest)
    bits = {
        node.name: next(a.i for a in node.attribute if a.name == "bits")
        for node in onnx.load(path, load_external_data=False).graph.node
        if node.op_type == "MatMulNBits"
    }
    assert {name for name, width in bits.items() if width == 8} == {"head", "layers.0.down"}


def test_recipe_of_another_kind_of_model_is_refused_at_once(data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(RecipeError, match="int8-smooth"):
        made(speaker(), tmp_path, data=data, recipe='name = "int8-smooth"', say=said.append)
    assert not said


def test_worst_nodes_get_eight_bits_until_the_limit_holds(data: Path, tmp_path: Path) -> None:
    """Where 8 bits throughout are slow, a mixture that holds the limit is worth more."""
    text = profile_path(PROFILE).read_text()
    profile = tmp_path / "mixed.toml"
    profile.write_text(text.replace("int8-block = 1.2", "int8-block = 0.1"))
    assert "int8-block = 0.1" in profile.read_text()
    plain = made(speaker(), tmp_path / "plain", data=data, recipe='name = "int4-b32-gptq"')
    limit = plain.report.candidates[0].agreement.drop * 0.6
    summary = made(speaker(), tmp_path / "mix", data=data, profile=str(profile), max_drop=limit)
    chosen = next(row for row in summary.report.candidates if row.status == "chosen")
    assert "-mixed" in chosen.name
    assert chosen.agreement.drop <= limit
    assert summary.unquantized
    assert {node.reason for node in summary.unquantized} == {
        "8 bits in blocks of 32 instead of 4 bits in blocks of 32"
    }


def test_large_fp32_is_tried_only_if_nothing_smaller_holds(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "LARGE_BYTES", 0)
    said: list[str] = []
    summary = made(speaker(), tmp_path / "one", data=data, max_drop=0.9, say=said.append)
    rows = {row.name: row for row in summary.report.candidates}
    assert rows["fp32"].reason == "not tried: it is large, and a smaller one holds"
    assert "building fp32" not in said
    profile = tmp_path / "rough.toml"
    text = profile_path(PROFILE).read_text()
    profile.write_text(
        text.replace('["int4-block", "int8-block", "fp32"]', '["int4-block", "fp32"]')
    )
    summary = made(speaker(), tmp_path / "two", data=data, profile=str(profile), max_drop=1e-6)
    assert summary.report.chosen == "fp32"
    assert {row.status for row in summary.report.candidates} == {"chosen", "rejected"}


def test_nothing_that_holds_says_which_limit_and_by_how_much(data: Path, tmp_path: Path) -> None:
    profile = tmp_path / "strict.toml"
    text = profile_path(PROFILE).read_text()
    profile.write_text(
        text.replace('recipes = ["int4-block", "int8-block", "fp32"]', 'recipes = ["int4-block"]')
    )
    with pytest.raises(ConversionError, match=r"perplexity increase .* exceeds --max-drop 1e-06"):
        made(speaker(), tmp_path / "work", data=data, profile=str(profile), max_drop=1e-6)


def test_model_beyond_the_budget_is_refused_with_the_numbers(data: Path, tmp_path: Path) -> None:
    profile = tmp_path / "tiny.toml"
    text = profile_path(PROFILE).read_text()
    assert "model_budget_mib = 2048" in text
    profile.write_text(text.replace("model_budget_mib = 2048", "model_budget_mib = 1"))
    with pytest.raises(ConversionError, match=r"peak memory \d+ MiB exceeds the budget of 1 MiB"):
        made(speaker(), tmp_path / "work", data=data, profile=str(profile))


def test_without_data_the_model_writes_its_own(tmp_path: Path) -> None:
    said: list[str] = []
    summary = made(speaker(), tmp_path, data=None, recipe='name = "int4-b32"', say=said.append)
    record = variant_in(tmp_path).record
    assert summary.report.data_origin == record.provenance.data_origin == "generated"
    assert any("the model itself" in message for message in said)
    assert summary.report.candidates[0].agreement.drop > 0


def weights(folder: Path) -> dict[str, bytes]:
    variant = variant_in(folder)
    graph = ir.load(variant.blob_path(variant.record.graphs[0].parts[0].digest)).graph
    return {name: value.const_value.tobytes() for name, value in graph.initializers.items()}


def changed(one: Path, two: Path) -> set[str]:
    """Nodes whose weights differ."""
    before, after = weights(one), weights(two)
    assert before.keys() == after.keys()
    return {name.rpartition(".")[0] for name in before if before[name] != after[name]}


def test_base_keeps_the_bytes_of_unchanged_tensors(fitted: Path, data: Path, tmp_path) -> None:
    """GPTQ alone would change every layer behind the one that was tuned."""
    tuned = speaker(changed=frozenset({"layers.0.gate", "layers.0.down"}))
    alone, based, back = (tmp_path / name for name in ("alone", "based", "back"))
    made(tuned, alone, data=data, recipe='name = "int4-b32-gptq"')
    base = open_bundle(fitted / "bundle")
    summary = made(tuned, based, data=data, base=base, max_drop=9.0)
    assert summary.report.reason == "recipe of the base, and its unchanged blocks"
    assert variant_in(based).record.recipe.name == "int4-b32-gptq"
    assert changed(fitted, based) == {"layers.0.gate_up", "layers.0.down"}
    assert changed(fitted, alone) > {"layers.1.qkv", "layers.1.down"}
    made(tuned, back, data=data, base=open_bundle(based / "bundle"), max_drop=9.0)
    assert weights(back) == weights(based)


def test_profiles_with_one_base_share_the_work(data: Path, tmp_path: Path) -> None:
    profiles, said = {"data": data, "also": ("x86-64", "board-512mb")}, []
    made(speaker(), tmp_path / "base", recipe='name = "int4-b32-gptq"', **profiles)
    tuned = speaker(changed=frozenset({"layers.0.down"}))
    base = open_bundle(tmp_path / "base" / "bundle")
    made(tuned, tmp_path / "tuned", base=base, max_drop=9.0, say=said.append, **profiles)
    assert sum(line.startswith("GPTQ") and "layer 1 of" in line for line in said) == 1
    assert len({v.record.graphs for v in open_bundle(tmp_path / "tuned" / "bundle").variants}) == 1


def test_base_may_be_installed_in_a_store(fitted: Path, data: Path, tmp_path: Path) -> None:
    """Which has the same files under other names, so that none is there twice."""
    base = Path(shutil.copytree(fitted / "bundle", tmp_path / "base"))
    Store(tmp_path / "store").install(open_bundle(base))
    assert all(file.stat().st_nlink > 1 for file in (base / "blobs" / "sha256").iterdir())
    made(speaker(), tmp_path / "again", data=data, base=open_bundle(base), max_drop=9.0)
    assert weights(tmp_path / "again") == weights(fitted)


def test_base_that_loses_too_much_is_searched_anew(fitted: Path, data: Path, tmp_path) -> None:
    base = open_bundle(fitted / "bundle")
    summary = made(speaker(), tmp_path, data=data, base=base, max_drop=0.01)
    assert "the base's recipe lost: perplexity increase" in summary.report.reason
    assert summary.report.chosen != "int4-b32-gptq"


def test_fp16_for_a_gpu_needs_no_tensorrt(data: Path, tmp_path: Path) -> None:
    made(speaker(), tmp_path, data=data, profile="jetson-orin-nano")
    record = variant_in(tmp_path, "jetson-orin-nano").record
    assert record.recipe.name == "fp16"
    assert record.engine.providers == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert not [key for key in record.engine.options if key.startswith("Tensorrt")]
    assert [graph.name for graph in record.graphs] == ["main"]
    assert {s.dtype for s in record.graphs[0].inputs if "past" in s.name} == {"float16"}


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ({"metric": "f1"}, "--metric"),
        ({"fixed": {"x": 1.0}}, "--fix"),
        ({"states": ()}, "--state"),
        ({"task": "feature-extraction"}, "--task"),
    ],
)
def test_options_of_other_models_are_refused(option, named, data: Path, tmp_path: Path) -> None:
    request = Request(
        source=Path("x"), profiles=(PROFILE,), out=tmp_path / "out", data=data, **option
    )
    with pytest.raises(InputError) as caught:
        DecoderJob(request, speaker(), tmp_path, lambda message: None)
    assert caught.value.where == named


@pytest.mark.parametrize("template", ["{% for", "{{ ''.__class__.__mro__ }}", "{{ 1 / 0 }}"])
def test_broken_chat_template_is_refused_at_once(template: str, data: Path, tmp_path: Path) -> None:
    source, said = speaker(), list[str]()
    generation = msgspec.structs.replace(source.generation, chat_template=template)
    with pytest.raises(SourceError, match="speaker: chat template"):
        made(replace(source, generation=generation), tmp_path, data=data, say=said.append)
    assert not said


def test_folder_becomes_a_bundle(tmp_path: Path) -> None:
    """All the way through the reader, for two profiles at once."""
    source = benchmark_model.write(tmp_path / "tiny", benchmark_model.TINY)
    (tmp_path / "recipe.toml").write_text('name = "int4-b32"')
    lines = [msgspec.json.encode({"text": f"alarm {i} pump set " * 9}).decode() for i in range(30)]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    report = convert(
        source, ["arm64", "board-512mb"], tmp_path / "out",
        data=tmp_path / "data.jsonl", recipe=tmp_path / "recipe.toml",
    )  # fmt: skip
    assert [variant.report.profile for variant in report.variants] == ["arm64", "board-512mb"]
    model = edge_sdk.load(tmp_path / "out", profile="arm64")
    completion = model.generate("set the pump", max_new_tokens=4)
    assert "".join(completion) == completion.text
    assert completion.stats.new_tokens > 0


def test_context_may_be_limited(tmp_path: Path) -> None:
    source = benchmark_model.write(tmp_path / "tiny", benchmark_model.TINY)
    config = json.loads((source / "config.json").read_text())
    config["max_position_embeddings"] = 10**9
    (source / "config.json").write_text(json.dumps(config))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('name = "int4-b32"')
    convert(source, PROFILE, tmp_path / "bundle", recipe=recipe, context=64)
    record = variant_in(tmp_path).record
    assert record.generation.context == 64
    assert "context limited to 64 of the model's 1,000,000,000 tokens: --context" in record.notes
    model = onnx.load(
        variant_in(tmp_path).blob_path(record.graphs[0].parts[0].digest), load_external_data=False
    )
    tables = [each.dims[0] for each in model.graph.initializer if "cos" in each.name]
    assert tables == [64]


def test_long_context_is_limited_by_default_and_a_longer_one_refused() -> None:
    source = speaker()
    assert limited(source, None) is source
    assert limited(source, CONTEXT).notes == source.notes
    million = replace(source, architecture=replace(source.architecture, context=1 << 20))
    cut = limited(million, None)
    assert cut.architecture.context == cut.generation.context == 32768
    assert cut.architecture.rope == million.architecture.rope
    assert "32,768 of the model's 1,048,576 tokens: --context" in cut.notes[-1]
    with pytest.raises(InputError, match="the model's context is 96"):
        limited(source, CONTEXT + 1)


@pytest.mark.parametrize(
    "given", [{"context": 63}, {"version": "foo"}, {"version": "1.0"}, {"version": "1.0.0-"}]
)
def test_wrong_numbers_are_refused_at_once(given) -> None:
    with pytest.raises(InputError) as caught:
        Request(source=Path("x"), profiles=(PROFILE,), out=Path("y"), **given)
    assert caught.value.where == f"--{next(iter(given))}"


def test_base_of_another_model_is_refused(fitted: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="head_dim = 16 instead of 32") as caught:
        made(speaker(hidden=128), tmp_path, data=data, base=open_bundle(fitted / "bundle"))
    assert caught.value.where == "--base"


def test_nothing_is_written_where_the_data_is_too_short(tmp_path: Path) -> None:
    source = benchmark_model.write(tmp_path / "tiny", benchmark_model.TINY)
    (tmp_path / "data.jsonl").write_text('{"text": "one"}')
    request = Request(
        source=source, profiles=(PROFILE,), out=tmp_path / "out", data=tmp_path / "data.jsonl"
    )
    with pytest.raises(InputError, match="at least 64"):
        run(request)
    assert not (tmp_path / "out").exists()


def test_int8_cache_is_scored_like_any_candidate(fitted: Path) -> None:
    record = variant_in(fitted).record
    (note,) = [note for note in record.notes if note.startswith("int8 cache: perplexity")]
    perplexity = float(note.removeprefix("int8 cache: perplexity ").split(",")[0])
    assert perplexity == pytest.approx(record.agreement.metrics["perplexity"][1], rel=0.05)


def test_scales_of_the_int8_cache_hold_all_that_was_seen_in_few_bits() -> None:
    seen = np.random.default_rng(1).lognormal(0, 5, 1000).astype(np.float32)
    rounded = graphs._rounded_up(seen)
    assert ((seen <= rounded) & (rounded < seen * np.float32(1.0626))).all()
    assert not (rounded.view(np.uint32) & 0x7FFFF).any(), "more than 4 bits of mantissa"
    assert (graphs._rounded_up(rounded) == rounded).all()


def test_int8_cache_that_loses_too_much_is_left_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scales a thousand times too large leave nothing of keys and values."""
    real = graphs.kv_scales

    def coarse(*arguments: object) -> list[KvScales]:
        return [KvScales(s.key * 1000, s.value * 1000) for s in real(*arguments)]

    monkeypatch.setattr(graphs, "kv_scales", coarse)
    made(speaker(), tmp_path, data=data, max_drop=0.9)
    record = variant_in(tmp_path).record
    assert [graph.name for graph in record.graphs] == ["main"]
    assert "left out" in next(note for note in record.notes if note.startswith("int8 cache"))
