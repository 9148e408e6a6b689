"""Adapters all the way: converted with their base, chosen per request, merged nowhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.converts
pytest.importorskip("onnx_ir")

from safetensors.numpy import load_file, save_file  # noqa: E402

import edge_sdk  # noqa: E402
from benchmarks.llm import model as benchmark_model  # noqa: E402
from converters import convert  # noqa: E402
from converters.decoder.adapters import CONFIG, WEIGHTS  # noqa: E402
from converters.decoder.checkpoint import Checkpoint  # noqa: E402
from edge_sdk import Model  # noqa: E402
from edge_sdk.bundle.reader import open_bundle  # noqa: E402
from edge_sdk.bundle.record import VariantRecord  # noqa: E402
from edge_sdk.cli.main import main  # noqa: E402
from edge_sdk.errors import InputError, SourceError  # noqa: E402
from edge_sdk.runtime.arrays import read_array  # noqa: E402
from edge_sdk.runtime.generation.decoder import Decoder  # noqa: E402
from edge_sdk.runtime.generation.kv import KVCache  # noqa: E402
from edge_sdk.runtime.prepared.artefact import read_index  # noqa: E402
from tests.cli.models import classifier  # noqa: E402

# Not of this machine's ISA: nothing is timed.
PROFILE = "arm64"
TOKENS = list(range(3, 40))
PERSONAS = {"pirate": ("q_proj", "v_proj", "o_proj", "gate_proj"), "terse": ("q_proj", "down_proj")}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, two adapters and what to convert them with."""
    home = tmp_path_factory.mktemp("personas")
    benchmark_model.write(home / "base", benchmark_model.TINY)
    checkpoint = Checkpoint(home / "base")
    for seed, (persona, targets) in enumerate(PERSONAS.items()):
        tensors = {}
        rng = np.random.default_rng(seed)
        for name, stored in checkpoint.tensors.items():
            if name.split(".")[-2] in targets:
                shapes = {"A": (4, stored.shape[1]), "B": (stored.shape[0], 4)}
                for side, shape in shapes.items():
                    key = f"base_model.model.{name.removesuffix('weight')}lora_{side}.weight"
                    tensors[key] = 0.3 * rng.standard_normal(shape, np.float32)
        (home / persona).mkdir()
        save_file(tensors, home / persona / WEIGHTS)
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": targets}
        (home / persona / CONFIG).write_text(json.dumps(config))
    lines = [json.dumps({"text": f"alarm {i} pump set " * 9}) for i in range(30)]
    (home / "data.jsonl").write_text("\n".join(lines))
    return home


def bundle(
    home: Path, source: str, out: Path, adapters: Mapping[str, Path], recipe: str = "int4-b32"
) -> Path:
    (home / "recipe.toml").write_text(f'name = "{recipe}"')
    convert(
        home / source, [PROFILE], out, name="personas", data=home / "data.jsonl",
        recipe=home / "recipe.toml", adapters=adapters,
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def path(home: Path) -> Path:
    return bundle(home, "base", home / "bundle", {name: home / name for name in PERSONAS})


def load(path: Path, **settings) -> Model:
    return edge_sdk.load(path, PROFILE, threads=1, **settings)


def record(path: Path) -> VariantRecord:
    return open_bundle(path).variant(PROFILE).record


def answer(model: Model, persona: str | None, prompt: str = "set the pump") -> tuple[int, ...]:
    completion = model.generate(prompt, max_new_tokens=16, adapter=persona)
    completion.read()
    return completion.tokens


def merge(home: Path, persona: str) -> None:
    """The base with an adapter's products added to its matrices, as a model of its own."""
    benchmark_model.write(home / f"merged-{persona}", benchmark_model.TINY)
    checkpoint = Checkpoint(home / "base")
    tensors = {name: checkpoint.read(name) for name in checkpoint.tensors}
    adapter = load_file(home / persona / WEIGHTS)
    for name in tensors:
        key = f"base_model.model.{name.removesuffix('weight')}lora"
        if f"{key}_A.weight" in adapter:
            tensors[name] += 2 * adapter[f"{key}_B.weight"] @ adapter[f"{key}_A.weight"]
    save_file(tensors, home / f"merged-{persona}" / "model.safetensors")


@pytest.mark.parametrize("persona", PERSONAS)
def test_base_with_adapter_is_the_merged_model(home: Path, tmp_path: Path, persona: str) -> None:
    merge(home, persona)
    merged = load(bundle(home, f"merged-{persona}", tmp_path / "merged", {}, "fp32"))
    adapted = load(
        bundle(home, "base", tmp_path / "base", {persona: home / persona}, "fp32"), prepare=False
    )
    assert answer(adapted, persona) == answer(merged, None) != answer(adapted, None)
    opened = adapted._runner.scheduler._decoders.of(persona)
    generation = adapted.record.generation
    cache = KVCache(generation, 1, len(TOKENS), "float32")
    decoder = Decoder(opened.session, cache, generation.vocab, opened._constants)
    expected = merged.logits(TOKENS)
    assert np.abs(decoder.logits(TOKENS) - expected).max() <= 1e-4
    assert np.abs(adapted.logits(TOKENS) - expected).max() > 0.1


def test_streams_of_all_personas_answer_as_alone(path: Path) -> None:
    chosen = [None, *PERSONAS, "pirate"]
    together = load(path)
    completions = [
        together.generate(f"alarm {i}", max_new_tokens=16, adapter=persona)
        for i, persona in enumerate(chosen)
    ]
    for completion in completions:
        completion.read()
    for i, persona in enumerate(chosen):
        assert completions[i].tokens == answer(load(path, streams=1), persona, f"alarm {i}")


def test_int8_cache_has_personas_too(path: Path) -> None:
    memory = record(path).memory
    limit = memory.peak + 2048 * memory.kv_per_token - 1
    lean = load(path, memory_limit=limit, context=2048, streams=1, prepare=False)
    assert lean._runner.plan.kv == "int8"
    with pytest.raises(InputError, match="there are: pirate, terse"):
        lean.generate("hello", adapter="parrot")
    assert set(lean._runner._adapters) == set(PERSONAS)


def test_every_graph_passes_its_golden_case(path: Path) -> None:
    graphs = [graph.name for graph in record(path).graphs]
    assert graphs == ["main", "main-kv8", "main-lora", "main-kv8-lora"]
    assert [case.graph for case in record(path).golden] == graphs
    assert load(path).self_test().cases == 1
    blobs = open_bundle(path).variant(PROFILE).blobs
    plain, plain8, adapted, adapted8 = (
        read_array(case.outputs["logits"], blobs) for case in record(path).golden
    )
    assert np.abs(plain8 - plain).max() < 0.1 * np.abs(plain).max() < np.abs(adapted - plain).max()
    assert np.abs(adapted8 - adapted).max() < 0.1 * np.abs(adapted).max()


def test_adapter_costs_its_own_bytes_only(home: Path, path: Path, tmp_path: Path) -> None:
    every = {name: home / name for name in PERSONAS}
    alone = record(bundle(home, "base", tmp_path / "alone", {}))
    both = record(path)
    weights = {blob for graph in alone.graphs for blob in graph.weights}
    assert {blob for graph in both.graphs for blob in graph.weights} == weights
    pirate, terse = both.adapters
    values = sum(np.prod(array.shape) for array in terse.arrays.values())
    assert 0 <= sum(blob.size for blob in terse.parts) - 4 * values < 64 * len(terse.arrays)
    assert not set(pirate.parts) & set(terse.parts)
    again = record(bundle(home, "base", tmp_path / "again", every))
    assert again == both


def test_prepared_weights_are_those_of_the_base(home: Path, tmp_path: Path) -> None:
    path = bundle(home, "base", tmp_path / "b", {"pirate": home / "pirate"})
    model = load(path)

    def prepared() -> list[set[str]]:
        indexes = [read_index(file) for file in sorted((path / "prepared").rglob("*.json"))]
        return [{weight.blob.digest for weight in index.weights} for index in indexes]

    assert len(prepared()) == 1
    answer(model, "pirate")
    with_adapter = prepared()
    assert len(with_adapter) == 2
    assert with_adapter[0] == with_adapter[1] != set()


def test_command_line_converts_and_shows_adapters(home: Path, tmp_path: Path, capsys) -> None:
    (home / "recipe.toml").write_text('name = "int4-b32"')
    options = ["--data", home / "data.jsonl", "--recipe", home / "recipe.toml"]
    for persona in PERSONAS:
        options += ["--adapter", f"{persona}={home / persona}"]
    out = tmp_path / "out"
    command = ["convert", home / "base", "-o", out, "-p", PROFILE, *options]
    assert main([str(word) for word in command]) == 0
    assert main(["inspect", str(out), "--profile", PROFILE]) == 0
    shown = capsys.readouterr().out
    assert "main-lora" in shown
    assert "pirate" in shown
    assert main(["inspect", str(out)]) == 0
    assert f"Adapters: {', '.join(PERSONAS)}\n" in capsys.readouterr().out
    ask = ["run", str(out), "--profile", PROFILE, "--prompt", "hello", "--max-new-tokens", "8"]
    said = []
    for persona in ([], ["--adapter", "pirate"]):
        assert main([*ask, *persona]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] != said[1]


def test_adapter_of_another_base_names_the_tensor(home: Path, tmp_path: Path) -> None:
    wide = replace(benchmark_model.TINY, hidden=128)
    benchmark_model.write(tmp_path / "wide", wide)
    with pytest.raises(SourceError, match=r"lora_A\.weight' of shape \[4, 64\]"):
        convert(tmp_path / "wide", [PROFILE], tmp_path / "out", adapters={"x": home / "pirate"})
    assert not (tmp_path / "out").exists()


def test_adapter_is_refused_for_other_models(home: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no dialogue model") as error:
        convert(classifier(tmp_path), [PROFILE], tmp_path / "out", adapters={"x": home / "pirate"})
    assert error.value.where == "--adapter"
