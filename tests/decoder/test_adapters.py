"""Adapters as PEFT saves them: what the graph computes with them, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.converts
pytest.importorskip("onnx_ir")

from safetensors.numpy import load_file, save_file  # noqa: E402

from converters.decoder import families, graph, names  # noqa: E402
from converters.decoder.adapters import CONFIG, WEIGHTS, LowRank, read_adapter  # noqa: E402
from converters.sources.gguf import GgufSource  # noqa: E402
from edge_sdk.errors import SourceError  # noqa: E402
from edge_sdk.runtime.generation.adapters import node_of  # noqa: E402
from tests.decoder.fixtures import CASES, FOLDER, logits, tokens  # noqa: E402
from tests.decoder.random_weights import RandomWeights  # noqa: E402
from tests.decoder.running import Runner  # noqa: E402
from tests.decoder.test_fidelity import load  # noqa: E402
from tests.decoder.test_gguf import from_case  # noqa: E402

SAVED = FOLDER / "adapters"
IDS = tokens()
BASES = {"attention": "llama", "patterns": "llama", "fused": "glm"}
CONFIGURED = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "bias": "none"}


def nodes_of(adapter: LowRank) -> set[str]:
    return {node_of(name) for name in adapter.arrays}


def run(architecture, weights, adapter: LowRank, folder: Path) -> np.ndarray:
    model = graph.build(architecture, weights, graph.FLOAT32, adapted=nodes_of(adapter))
    return Runner(model, folder)([IDS], [len(IDS)], range(len(IDS)), adapter.arrays)[0]


@pytest.mark.parametrize("name", BASES)
def test_logits_are_those_of_peft(name: str, tmp_path: Path) -> None:
    architecture, weights = load(BASES[name])
    with np.load(SAVED / "logits.npz") as arrays:
        expected = arrays[name]
    found = run(architecture, weights, read_adapter(name, SAVED / name, architecture), tmp_path)
    assert np.abs(found - expected).max() <= 1e-4
    assert np.abs(logits(BASES[name]) - expected).max() > 1


@pytest.mark.parametrize("name", ["attention", "fused"])
def test_gguf_of_the_same_base_takes_the_adapter(name: str, tmp_path: Path) -> None:
    source = GgufSource().read(
        from_case(BASES[name], tmp_path / "base.gguf"), states=None, task=None
    )
    adapter = read_adapter(name, SAVED / name, source.architecture)
    found = run(source.architecture, source.weights, adapter, tmp_path)
    with np.load(SAVED / "logits.npz") as arrays:
        assert np.abs(found - arrays[name]).max() <= 1e-4


def peft_folder(folder: Path, architecture, modules: dict[str, tuple[int, int]]) -> Path:
    """An adapter of rank 3 over these modules of a checkpoint."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    tensors = {}
    for module, (rows, width) in modules.items():
        for side, shape in (("A", (3, width)), ("B", (rows, 3))):
            name = f"base_model.model.{module}.lora_{side}.weight"
            tensors[name] = 0.2 * rng.standard_normal(shape, np.float32)
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(CONFIGURED))
    return folder


class Merged(RandomWeights):
    """Weights with an adapter added to them, as :func:`peft_folder` scales it."""

    def __init__(self, architecture, folder: Path) -> None:
        super().__init__(architecture)
        self._places = families.places(architecture)
        self._tensors = load_file(folder / WEIGHTS)

    def read(self, name: str):
        place = self._places[name]
        prefix = f"base_model.model.{place.tensor.removesuffix('.weight')}"
        if f"{prefix}.lora_A.weight" not in self._tensors:
            return super().read(name)
        a, b = (self._tensors[f"{prefix}.lora_{side}.weight"] for side in "AB")
        return super().read(name) + 2 * (b @ a)[... if place.rows is None else place.rows]


@pytest.mark.parametrize("family", ["llama", "smollm2", "glm4", "internlm2"])
def test_adapter_equals_merged_weights(family: str, tmp_path: Path) -> None:
    """Every matrix adapted, among them those that a checkpoint or a node fuses."""
    architecture, _ = families.read(CASES[family]["config"], family)
    modules: dict[str, tuple[int, int]] = {}
    shapes = names.shapes(architecture)
    for node in names.nodes(architecture):
        for part in names.parts(node) if node != "head" else ():
            module = families.places(architecture)[part].tensor.removesuffix(".weight")
            rows, width = shapes[part]
            modules[module] = modules.get(module, (0, 0))[0] + rows, width
    folder = peft_folder(tmp_path / "adapter", architecture, modules)
    adapter = read_adapter("all", folder, architecture)
    assert len(nodes_of(adapter)) == 4 * architecture.layers
    found = run(architecture, RandomWeights(architecture), adapter, tmp_path)
    merged = graph.build(architecture, Merged(architecture, folder), graph.FLOAT32)
    expected = Runner(merged, tmp_path)([IDS], [len(IDS)], range(len(IDS)))[0]
    base = graph.build(architecture, RandomWeights(architecture), graph.FLOAT32)
    without = Runner(base, tmp_path)([IDS], [len(IDS)], range(len(IDS)))[0]
    assert np.abs(found - expected).max() <= 1e-4 < np.abs(found - without).max()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAVED / "attention", tmp_path / "adapter"))


def refused(folder: Path, message: str, **base) -> SourceError:
    with pytest.raises(SourceError, match=message) as error:
        read_adapter("persona", folder, replace(load("llama")[0], **base))
    return error.value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "LOHA"),
        ("bias", "lora_only"),
        ("use_dora", True),
        ("lora_bias", True),
        ("modules_to_save", ["embed_tokens"]),
        ("layer_replication", [[0, 1], [0, 2]]),
        ("trainable_token_indices", [3]),
        ("init_lora_weights", "pissa"),
        ("lora_alpha", "8"),
        ("use_rslora", 1),
        ("alpha_pattern", {"q_proj": -1}),
        ("alpha_pattern", {"q_proj(": 1}),
        ("something_new", True),
    ],
)
def test_field_that_is_not_supported_is_named(folder: Path, field: str, value) -> None:
    config = json.loads((folder / CONFIG).read_text()) | {field: value}
    (folder / CONFIG).write_text(json.dumps(config))
    assert refused(folder, field).where == str(folder / CONFIG)


def test_another_models_adapter_names_the_tensor(folder: Path) -> None:
    error = refused(folder, r"lora_A.weight' of shape \[4, 32\] .* \[4, 64\]", hidden=64)
    assert error.where == str(folder / WEIGHTS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "layers.0.self_attn.q_proj.lora_A",
            "layers.9.self_attn.q_proj.lora_A",
            "layers.9.*q_proj",
        ),
        ("layers.0.self_attn.q_proj.lora_A", "embed_tokens.lora_A", "embed_tokens"),
        ("q_proj.lora_B", "q_proj.lora_magnitude_vector", "lora_magnitude_vector"),
        ("q_proj.lora_B", None, "lacks lora_B of .*q_proj"),
        ("", None, "holds no tensor"),
    ],
)
def test_tensor_that_does_not_belong_is_named(folder: Path, old: str, new, message: str) -> None:
    tensors = load_file(folder / WEIGHTS)
    hit = {name for name in tensors if old in name}
    assert hit
    kept = {name: value for name, value in tensors.items() if name not in hit}
    moved = {name.replace(old, new): tensors[name] for name in hit} if new else {}
    save_file(kept | moved, folder / WEIGHTS)
    refused(folder, message)


def test_adapter_that_is_not_finite_is_named(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    name = min(tensors)
    save_file(tensors | {name: tensors[name] * np.float32("nan")}, folder / WEIGHTS)
    refused(folder, r"layers\.0\.self_attn\.q_proj is not finite")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, f"holds no {name}")


def test_damaged_file_is_named(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-10])
    assert refused(folder, "not a complete safetensors file").where == str(folder / WEIGHTS)
