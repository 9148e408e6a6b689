"""Hugging Face folders as sources: what is read from them, and what is said of damaged ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

pytestmark = pytest.mark.converts
pytest.importorskip("onnx_ir")

import tokenizers  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

from converters.decoder import graph  # noqa: E402
from converters.source import open_source  # noqa: E402
from edge_sdk.bundle.record import Sampling  # noqa: E402
from edge_sdk.errors import SourceError  # noqa: E402
from tests.decoder.fixtures import CASES, FOLDER, logits, tokens  # noqa: E402
from tests.decoder.running import Runner  # noqa: E402

SPECIAL = ("<s>", "</s>", "<|im_end|>")


def put(folder: Path, name: str, **content) -> None:
    """Writes a JSON file, over what it holds already."""
    file = folder / name
    known = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(known | content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete folder: SmolLM2's architecture, tiny."""
    path = tmp_path / "my model"
    path.mkdir()
    shutil.copy(FOLDER / "smollm2" / "model.safetensors", path)
    put(path, "config.json", **CASES["smollm2"]["config"], eos_token_id=1)
    vocab = {text: number for number, text in enumerate((*SPECIAL, "a", "b", "ab"))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, [("a", "b")]))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(path / "tokenizer.json"))
    put(path, "tokenizer_config.json", bos_token="<s>", eos_token={"content": "</s>"})
    return path


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    found = open_source(folder).weights
    return {name: found.read(name) for name in found.names()}


def test_a_folder_gives_the_reference_logits(folder: Path, tmp_path: Path) -> None:
    source = open_source(folder)
    run = Runner(graph.build(source.architecture, source.weights, graph.FLOAT32), tmp_path)
    ids = tokens()
    assert np.abs(run([ids], [len(ids)], range(len(ids)))[0] - logits("smollm2")).max() <= 1e-4
    assert source.name == "my-model"
    assert source.size_bytes == (folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32, np.float64])
def test_every_float_type_is_read_exactly(dtype, folder: Path) -> None:
    file = folder / "model.safetensors"
    given = {name: value.astype(dtype) for name, value in load_file(file).items()}
    save_file(given, file)
    found = weights_of(folder)
    wanted = given["model.layers.1.mlp.down_proj.weight"].astype(np.float32)
    np.testing.assert_array_equal(found["layers.1.down"], wanted)
    assert all(value.dtype == np.float32 for value in found.values())


def shard(folder: Path) -> list[Path]:
    """Splits the weights over two files with an index, as large models come."""
    whole = folder / "model.safetensors"
    given = sorted(load_file(whole).items())
    whole.unlink()
    table = {}
    for number, part in enumerate((given[:7], given[7:]), 1):
        name = f"model-{number:05}-of-00002.safetensors"
        save_file(dict(part), folder / name)
        table |= {tensor: name for tensor, _ in part}
    put(folder, "model.safetensors.index.json", weight_map=table)
    return sorted(folder.glob("model-*"))


def test_a_sharded_model_is_the_same(folder: Path) -> None:
    whole = weights_of(folder)
    shard(folder)
    found = weights_of(folder)
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_missing_shard_is_named(folder: Path) -> None:
    shards = shard(folder)
    shards[1].unlink()
    with pytest.raises(SourceError, match=r"'model-00002-of-00002.safetensors', which is not"):
        open_source(folder)


def test_weights_that_lie_there_once_more_are_left_alone(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    assert open_source(folder).size_bytes == (folder / "model.safetensors").stat().st_size


def test_the_digest_follows_every_file(folder: Path) -> None:
    digests = [open_source(folder).digest]
    assert open_source(folder).digest == digests[0]
    (folder / "README.md").write_text("not part of the model")
    assert open_source(folder).digest == digests[0]
    put(folder, "config.json", rms_norm_eps=1e-5)
    digests.append(open_source(folder).digest)
    put(folder, "generation_config.json", do_sample=True)
    digests.append(open_source(folder).digest)
    put(folder, "tokenizer_config.json", chat_template="x")
    digests.append(open_source(folder).digest)
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    digests.append(open_source(folder).digest)
    assert len(set(digests)) == len(digests)


def test_the_name_of_a_downloaded_snapshot_is_the_repository(folder: Path, tmp_path: Path) -> None:
    cached = tmp_path / "models--HuggingFaceTB--SmolLM2-360M" / "snapshots" / "0a1b2c"
    cached.parent.mkdir(parents=True)
    folder.rename(cached)
    assert open_source(cached).name == "SmolLM2-360M"


def test_the_licence_is_the_model_cards(folder: Path) -> None:
    assert open_source(folder).licence is None
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Model\n")
    assert open_source(folder).licence == "apache-2.0"


def test_special_tokens_come_from_wherever_they_are_named(folder: Path) -> None:
    plain = open_source(folder).generation
    assert (plain.eos, plain.bos, plain.add_bos) == ((1,), 0, False)
    assert plain.tokens == {"bos_token": "<s>", "eos_token": "</s>"}
    put(folder, "special_tokens_map.json", bos_token="b", unk_token="a")
    assert open_source(folder).generation.tokens == plain.tokens | {"unk_token": "a"}
    put(folder, "generation_config.json", eos_token_id=[2, 1])
    put(folder, "tokenizer_config.json", add_bos_token=True)
    more = open_source(folder).generation
    assert (more.eos, more.add_bos) == ((2, 1), True)


def test_a_tokenizer_that_begins_texts_itself_is_noticed(folder: Path) -> None:
    file = folder / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer.save(str(file))
    assert open_source(folder).generation.add_bos
    put(folder, "tokenizer_config.json", add_bos_token=False)
    assert not open_source(folder).generation.add_bos


def test_chat_templates_in_all_their_places(folder: Path) -> None:
    assert open_source(folder).generation.chat_template == ""
    put(folder, "tokenizer_config.json", chat_template="one")
    assert open_source(folder).generation.chat_template == "one"
    named = [{"name": "tool_use", "template": "two"}, {"name": "default", "template": "three"}]
    put(folder, "tokenizer_config.json", chat_template=named)
    assert open_source(folder).generation.chat_template == "three"
    put(folder, "tokenizer_config.json", chat_template=named[:1])
    assert open_source(folder).generation.chat_template == "two"
    (folder / "chat_template.jinja").write_text("four")
    assert open_source(folder).generation.chat_template == "four"
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(SourceError, match=r"chat_template\.jinja: is not UTF-8"):
        open_source(folder)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, Sampling()),
        ({"temperature": 0.7, "top_p": 0.9}, Sampling()),  # unused without do_sample
        ({"repetition_penalty": 1.1}, Sampling(repetition_penalty=1.1)),
        ({"do_sample": True}, Sampling(temperature=1.0, top_k=50)),
        (
            {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05},
            Sampling(temperature=0.7, top_k=20, top_p=0.8, min_p=0.05),
        ),
        ({"do_sample": True, "top_k": None, "top_p": None}, Sampling(temperature=1.0)),
    ],
)
def test_sampling_defaults_are_those_of_transformers(given, wanted, folder: Path) -> None:
    put(folder, "generation_config.json", **given)
    assert open_source(folder).generation.sampling == wanted


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("generation_config.json", {"eos_token_id": "</s>"}, "eos_token_id = '</s>'"),
        ("generation_config.json", {"do_sample": True, "top_p": "high"}, "top_p = 'high'"),
        ("tokenizer_config.json", {"chat_template": 5}, "neither a template nor a list"),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}, "added tokens"),
        ("config.json", {"model_type": "bert"}, "model_type = 'bert' is not supported"),
        ("config.json", {"num_hidden_layers": 3}, r"lacks the tensor model\.layers\.2\."),
        ("config.json", {"num_hidden_layers": 1}, r"no rule for, the tensor model\.layers\.1\."),
        ("config.json", {"vocab_size": 65}, r"'model.embed_tokens.weight' of shape \[64, 32\]"),
    ],
)
def test_wrong_fields_are_named(file: str, content, message: str, folder: Path) -> None:
    put(folder, file, **content)
    with pytest.raises(SourceError, match=message) as caught:
        open_source(folder)
    assert str(folder) in str(caught.value.where)


def test_a_tokenizer_of_a_larger_model_is_refused(folder: Path) -> None:
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    rows = CASES["smollm2"]["config"]["vocab_size"]
    model["vocab"] |= {f"w{i}": i for i in range(len(model["vocab"]), rows)}
    put(folder, "tokenizer.json", model=model)
    open_source(folder)
    model["vocab"]["one more"] = rows
    put(folder, "tokenizer.json", model=model)
    said = f"vocab_size = {rows} is less than the tokenizer's {rows + 1} tokens"
    with pytest.raises(SourceError, match=said) as caught:
        open_source(folder)
    assert caught.value.where == str(folder / "config.json")


def test_a_model_that_is_no_decoder_is_sent_through_onnx(folder: Path) -> None:
    put(folder, "config.json", model_type="bert")
    with pytest.raises(SourceError) as caught:
        open_source(folder)
    assert "llama" in str(caught.value.remedy)
    assert "ONNX" in str(caught.value.remedy)


def test_weights_in_other_formats_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(SourceError, match=r"no \*\.safetensors file") as caught:
        open_source(folder)
    assert "download" in str(caught.value.remedy)
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(SourceError) as caught:
        open_source(folder)
    assert "pytorch_model.bin is not read" in str(caught.value.remedy)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"")
    with pytest.raises(SourceError) as caught:
        open_source(folder)
    assert str(folder / "onnx" / "model.onnx") in str(caught.value.remedy)


def test_weights_without_a_configuration(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(SourceError, match=r"no config\.json"):
        open_source(folder)


def test_quantized_tensors_are_refused_when_read(folder: Path) -> None:
    file = folder / "model.safetensors"
    given = load_file(file)
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(given | {name: given[name].astype(np.int8)}, file)
    with pytest.raises(SourceError, match=r"up_proj\.weight' has the unsupported type I8"):
        weights_of(folder)


@pytest.mark.parametrize("size", [0, 5, 100, 2000, -1])
def test_a_cut_file_is_named(size: int, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(SourceError, match="not a complete safetensors file") as caught:
        open_source(folder)
    assert caught.value.where == str(file)


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_damaged_configuration_is_named(text: str, folder: Path) -> None:
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SourceError, match="JSON") as caught:
        open_source(folder)
    assert "config.json" in str(caught.value.where)
