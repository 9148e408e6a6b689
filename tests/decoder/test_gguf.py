"""GGUF files as sources: the same model as the Hugging Face folder, blocks code for code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.converts
pytest.importorskip("onnx_ir")
gguf = pytest.importorskip("gguf")

from gguf import GGMLQuantizationType as Type  # noqa: E402

from benchmarks.llm import gguf_file  # noqa: E402
from converters.decoder import families, graph, names, rope  # noqa: E402
from converters.decoder.checkpoint import Checkpoint  # noqa: E402
from converters.decoder.config import Config  # noqa: E402
from converters.decoder.stored import StoredWeights  # noqa: E402
from converters.decoder.weights import WeightFormat  # noqa: E402
from converters.quantize import dequantize  # noqa: E402
from converters.source import digest_files, open_source  # noqa: E402
from converters.sources.gguf import GgufSource  # noqa: E402
from edge_sdk.bundle.record import Sampling  # noqa: E402
from edge_sdk.errors import SourceError  # noqa: E402
from tests.decoder.fixtures import CASES, FOLDER, logits, tokens  # noqa: E402
from tests.decoder.random_weights import RandomWeights, llama  # noqa: E402
from tests.decoder.running import Runner  # noqa: E402

THETA = 100.0  # of all fixtures
ARCHITECTURES = {
    "llama": "llama",
    "smollm2": "llama",
    "qwen3": "qwen3",
    "internlm2": "internlm2",
    "internlm3": "llama",
    "glm": "chatglm",
    "glm4": "glm4",
    "rope-linear": "llama",
    "rope-yarn": "llama",
    "rope-llama3": "llama",
}
MODEL = llama(tied=False)
MATRICES = {name: gguf_file.LAYER[name] for name in ("q", "k", "v", "o", "gate", "up", "down")}


def scaling(case: str) -> dict[str, object]:
    """What llama.cpp's converter writes of ``rope_scaling``."""
    given = CASES[case]["config"].get("rope_scaling", {})
    kind = given.get("rope_type")
    if kind not in ("linear", "yarn"):
        return {}
    found = {"type": kind, "factor": float(given["factor"])}
    if kind == "yarn":
        found["original_context_length"] = given["original_max_position_embeddings"]
    return {f"llama.rope.scaling.{key}": value for key, value in found.items()}


def from_case(case: str, path: Path) -> Path:
    """A fixture as a GGUF file."""
    config, folder = CASES[case]["config"], FOLDER / CASES[case]["weights"]
    model, parts = families.read(config, case)
    shapes = names.shapes(model)
    weights = StoredWeights(
        Checkpoint(folder), parts, shapes, ignored=families.ignored, where=folder
    )
    tensors = {}
    if case == "rope-llama3":  # comes as divisors of the unscaled frequencies
        plain, _ = rope.read(
            Config(config | {"rope_scaling": None}, case), model.head_dim, theta=THETA
        )
        ratio = np.divide(plain.inverse_frequencies, model.rope.inverse_frequencies)
        tensors["rope_freqs.weight"] = ratio.astype(np.float32)
    return gguf_file.write(
        path,
        model,
        weights,
        arch=ARCHITECTURES[case],
        theta=THETA,
        extra=scaling(case),
        tensors=tensors,
    )


def small(path: Path, model=MODEL, **options):
    return gguf_file.write(path, model, RandomWeights(model), arch="llama", **options)


def read(path: Path):
    return GgufSource().read(path, states=None, task=None)


@pytest.mark.parametrize("case", ARCHITECTURES)
def test_a_file_gives_the_reference_logits(case: str, tmp_path: Path) -> None:
    source = read(from_case(case, tmp_path / "model.gguf"))
    run = Runner(graph.build(source.architecture, source.weights, graph.FLOAT32), tmp_path)
    ids = tokens()
    assert np.abs(run([ids], [len(ids)], range(len(ids)))[0] - logits(case)).max() <= 1e-4


@pytest.mark.parametrize(("kind", "bits"), [(Type.Q4_0, 4), (Type.Q8_0, 8)])
def test_blocks_are_taken_over_code_for_code(kind: Type, bits: int, tmp_path: Path) -> None:
    weights = read(small(tmp_path / "m.gguf", types=dict.fromkeys(MATRICES.values(), kind))).weights
    for name in (f"layers.1.{last}" for last in MATRICES):  # q and k: rows in another order
        found = weights.blocks(name, WeightFormat(bits))
        assert found is not None
        real = dequantize(found, bits, weights.shape(name)[1])
        np.testing.assert_array_equal(real, weights.read(name))
        assert np.abs(real).max() > 0


def test_values_are_those_of_the_gguf_package(tmp_path: Path) -> None:
    """Every type that files use; k-quants need rows of 256."""
    model = llama(hidden=256, heads=4, intermediate=512, layers=1)
    given = RandomWeights(model).read("layers.0.down")
    for kind in (Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0):
        path = small(tmp_path / f"{kind.name}.gguf", model, types={"ffn_down": kind})
        weights = read(path).weights
        quantized = gguf.quants.quantize(given, kind)
        wanted = gguf.quants.dequantize(quantized, kind)
        np.testing.assert_array_equal(weights.read("layers.0.down"), wanted)
        assert np.abs(wanted - given).max() < 0.1


def test_blocks_only_where_they_are_as_wanted(tmp_path: Path) -> None:
    weights = read(
        small(tmp_path / "m.gguf", types={"attn_output": Type.Q4_0, "ffn_up": Type.Q8_0})
    ).weights
    others = (WeightFormat(4, 64), WeightFormat(4, symmetric=False), WeightFormat(8, 16))
    stored = {
        (name, wanted)
        for name in weights.names()
        for wanted in (WeightFormat(4), WeightFormat(8), *others)
        if len(weights.shape(name)) == 2 and weights.blocks(name, wanted) is not None
    }
    layers = range(MODEL.layers)
    assert stored == {(f"layers.{i}.o", WeightFormat(4)) for i in layers} | {
        (f"layers.{i}.up", WeightFormat(8)) for i in layers
    }


def test_without_an_output_tensor_the_head_is_tied(tmp_path: Path) -> None:
    tied = read(small(tmp_path / "a.gguf", llama(tied=True)))
    untied = read(small(tmp_path / "b.gguf", llama(tied=False)))
    assert tied.architecture == replace(untied.architecture, tied=True)
    assert "head" not in tied.weights.names()
    assert "head" in untied.weights.names()


def test_what_the_metadata_say(tmp_path: Path) -> None:
    path = small(
        tmp_path / "m.gguf",
        extra={
            "general.name": "My model 2",
            "general.license": "mit",
            "general.sampling.temp": 0.5,
            "general.sampling.top_k": 20,
            "tokenizer.ggml.add_bos_token": True,
        },
    )
    source = open_source(path)
    assert (source.name, source.licence) == ("My-model-2", "mit")
    assert source.digest == digest_files([path])
    assert source.notes == (f"tensors in the source: {3 + 9 * MODEL.layers} F32",)
    assert source.size_bytes == path.stat().st_size
    found = source.architecture  # metadata are float32
    assert found == replace(MODEL, rope=found.rope, norm_eps=pytest.approx(MODEL.norm_eps))
    assert found.rope.inverse_frequencies == pytest.approx(MODEL.rope.inverse_frequencies)
    text = source.generation
    assert text.eos == (1, 2)  # the one named, and <|im_end|>, which llama.cpp knows too
    assert (text.bos, text.add_bos) == (0, True)
    assert text.tokens == {"bos_token": "<s>", "eos_token": "</s>"}
    assert text.chat_template == "{{ messages }}"
    assert text.sampling == Sampling(temperature=0.5, top_k=20)


def test_a_split_model_is_read_from_any_part(tmp_path: Path) -> None:
    whole = read(small(tmp_path / "whole.gguf"))
    writer = gguf.GGUFWriter(tmp_path / "part.gguf", "llama", split_max_tensors=9)
    gguf_file.metadata(writer, MODEL, 10000.0)
    for key, value in gguf_file.byte_tokens(MODEL.vocab).items():
        gguf_file.add(writer, f"tokenizer.{key}", value)
    for name, value in gguf_file.stored(MODEL, RandomWeights(MODEL), "llama"):
        writer.add_tensor(name, np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    parts = sorted(tmp_path.glob("part-*.gguf"))
    assert len(parts) == 3
    for part in parts:
        source = read(part)
        assert source.architecture == whole.architecture
        for name in whole.weights.names():
            np.testing.assert_array_equal(source.weights.read(name), whole.weights.read(name))
    parts[1].unlink()
    with pytest.raises(SourceError, match=r"part-00002-of-00003.gguf: this part .* is not there"):
        read(parts[0])


def test_a_file_named_by_its_digest_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    path = small(tmp_path / "sha256-0123")
    assert open_source(path).architecture.layers == MODEL.layers


def tokenizer(**changes) -> dict[str, object]:
    return gguf_file.byte_tokens(MODEL.vocab) | {
        key.replace("__", "."): value for key, value in changes.items()
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer": tokenizer(ggml__pre="default")}, "tokenizer.ggml.pre = 'default'"),
        ({"tokenizer": tokenizer(ggml__model="rwkv")}, "tokenizer.ggml.model = 'rwkv'"),
        ({"tokenizer": tokenizer(ggml__tokens=["a", "b"])}, "token_type has 128 entries for 2"),
        ({"tokenizer": tokenizer(ggml__merges=[1, 2])}, "tokenizer.ggml.merges is not a list"),
        ({"extra": {"llama.rope.scaling.type": "longrope"}}, "scaling.type = 'longrope'"),
        ({"tensors": {"blk.0.ffn_gate_inp.weight": np.ones((2, 2), np.float32)}}, "ffn_gate_inp"),
        ({"tensors": {"rope_freqs.weight": np.ones(3, np.float32)}}, "8 positive factors"),
    ],
)
def test_what_is_not_supported_is_named(change, message: str, tmp_path: Path) -> None:
    path = small(tmp_path / "m.gguf", **change)
    with pytest.raises(SourceError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value.where)
    assert caught.value.remedy


def test_an_unknown_architecture_lists_the_known_ones(tmp_path: Path) -> None:
    path = gguf_file.write(tmp_path / "m.gguf", MODEL, RandomWeights(MODEL), arch="mamba")
    with pytest.raises(SourceError, match="'mamba' is not supported") as caught:
        read(path)
    assert "llama, qwen2, qwen3" in str(caught.value.remedy)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    weights = RandomWeights(MODEL)
    path = gguf_file.write(tmp_path / "m.gguf", MODEL, weights, arch="llama")
    content = path.read_bytes().replace(b"blk.1.ffn_down.weight", b"blk.1.ffn_dawn.weight")
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"lacks the tensor blk\.1\.ffn_down\.weight"):
        read(path)


def test_a_file_of_another_byte_order_or_version_is_refused(tmp_path: Path) -> None:
    content = bytearray(small(tmp_path / "m.gguf").read_bytes())
    for version, message in ((b"\x00\x00\x00\x03", "big-endian"), (b"\x01\0\0\0", "version 1")):
        content[4:8] = version
        (tmp_path / "other.gguf").write_bytes(content)
        with pytest.raises(SourceError, match=message):
            read(tmp_path / "other.gguf")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = small(tmp_path / "m.gguf")
    content = path.read_bytes()
    cuts = [0, 3, 7, 20, *np.linspace(24, len(content) - 1, 60, dtype=int)]
    for end in cuts:
        path.write_bytes(content[:end])
        with pytest.raises(SourceError, match="cut off"):
            read(path)


def test_a_file_cut_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    path = small(tmp_path / "m.gguf")
    weights = read(path).weights
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(SourceError, match="cut off"):
        for name in weights.names():
            weights.read(name)


def test_flipped_bytes_in_the_header_raise_nothing_but_source_errors(tmp_path: Path) -> None:
    path = small(tmp_path / "m.gguf")
    content = path.read_bytes()
    header = content.index(b"blk.1.ffn_up.weight") + 100
    random, refused = np.random.default_rng(0), 0
    for _ in range(400):
        damaged = bytearray(content)
        damaged[int(random.integers(header))] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            read(path)
        except SourceError:
            refused += 1
    assert refused > 100  # the others changed a text, or a number to another good one
