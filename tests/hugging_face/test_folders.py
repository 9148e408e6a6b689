"""What a folder says of its model, before anything is exported; needs no toolchain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from converters.hugging_face.folder import ModelFolder
from converters.hugging_face.steps import processing
from converters.hugging_face.tasks import export_task
from converters.source import open_source
from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import SourceError

pytestmark = pytest.mark.converts

TOKENS = tuple(
    TensorSpec(name=name, dtype="int64", shape=("batch", "sequence"))
    for name in ("input_ids", "attention_mask")
)
SOUND = (TensorSpec(name="input_values", dtype="float32", shape=("batch", "samples")),)
LABELS = {"id2label": {"1": "ash", "0": "oak", "10": "fir"}}
POOLING = "sentence_transformers.models.Pooling"
DENSE = "sentence_transformers.models.Dense"


def logits(*shape: int | str) -> tuple[TensorSpec, ...]:
    return (TensorSpec(name="logits", dtype="float32", shape=("batch", *shape)),)


@pytest.fixture
def write(tmp_path: Path):
    """Writes JSON files into a folder, by name and content."""

    def write(**files: Any) -> ModelFolder:
        for name, content in files.items():
            path = tmp_path / (name.replace("__", "/") + ".json")
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content))
        return ModelFolder(tmp_path)

    return write


@pytest.mark.parametrize(
    ("architecture", "model_type", "named", "task"),
    [
        ("BertForSequenceClassification", "bert", None, "text-classification"),
        ("BertForSequenceClassification", "bert", "classification", "text-classification"),
        ("HubertForSequenceClassification", "hubert", None, "audio-classification"),
        ("BertForSequenceClassification", "bert", "feature-extraction", "feature-extraction"),
        ("DeiTForImageClassificationWithTeacher", "deit", None, "image-classification"),
        ("T5ForConditionalGeneration", "t5", None, "text2text-generation-with-past"),
        ("MarianMTModel", "marian", None, "text2text-generation-with-past"),
        (
            "WhisperForConditionalGeneration", "whisper", None,
            "automatic-speech-recognition-with-past",
        ),
        ("HubertForCTC", "hubert", None, "automatic-speech-recognition"),
        ("BertModel", "bert", None, "feature-extraction"),
        ("LlamaForCausalLM", "llama", None, None),
        ("GPT2LMHeadModel", "gpt2", None, None),
        (None, "llama", None, None),
        (None, "bert", "token-classification", "token-classification"),
    ],
)  # fmt: skip
def test_the_architecture_says_the_task(
    architecture: str | None, model_type: str, named: str | None, task: str | None
) -> None:
    config = {"model_type": model_type, "architectures": [architecture] if architecture else []}
    assert export_task(config, named, "config.json") == task


def test_a_task_that_the_architecture_does_not_do_is_refused() -> None:
    config = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
    with pytest.raises(SourceError, match="does not do question-answering") as caught:
        export_task(config, "question-answering", "config.json")
    assert caught.value.where == "config.json: architectures"
    assert "fill-mask" in str(caught.value.remedy)


def test_an_architecture_for_something_else_is_refused_with_what_there_is() -> None:
    config = {"model_type": "yolos", "architectures": ["YolosForObjectDetection"]}
    with pytest.raises(SourceError, match="YolosForObjectDetection is for nothing") as caught:
        export_task(config, None, "config.json")
    assert caught.value.where == "config.json: architectures"
    assert "image-classification" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("config", "settings", "limit"),
    [
        ({"max_position_embeddings": 512}, {"model_max_length": 128}, 128),
        ({"max_position_embeddings": 512}, {"model_max_length": 10**30}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514}, {}, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 1}, {}, 512),
        ({}, {}, None),
    ],
)
def test_texts_are_as_long_as_every_file_allows(
    write: Any, config: Any, settings: Any, limit: int | None
) -> None:
    assert write(config=config, tokenizer_config=settings).token_limit == limit


@pytest.mark.parametrize(
    ("config", "ops"),
    [
        (LABELS, ["softmax", "labels"]),
        (LABELS | {"problem_type": "multi_label_classification"}, ["sigmoid", "labels"]),
        (LABELS | {"problem_type": "regression"}, ["labels"]),
        ({"id2label": {"0": "score"}}, ["sigmoid", "labels"]),
    ],
)
def test_scores_become_what_a_pipeline_makes_of_them(write: Any, config: Any, ops: Any) -> None:
    found = processing(write(config=config), "text-classification", TOKENS, logits(3))
    assert [step.op for step in found.before] == ["tokenize"]
    assert [step.op for step in found.after] == ops


def test_labels_come_in_the_order_of_their_numbers(write: Any) -> None:
    assert write(config=LABELS).labels == ("oak", "ash", "fir")


def test_questions_are_read_in_windows(write: Any) -> None:
    folder = write(config={"max_position_embeddings": 512})
    outputs = (*logits("sequence"), *logits("sequence"))
    (step,) = processing(folder, "question-answering", TOKENS, outputs).before
    assert (step.options["max_length"], step.options["stride"]) == (384, 128)


def modules(*kinds: str) -> list[dict[str, str]]:
    return [{"type": kind, "path": f"{i}_{kind[-5:]}"} for i, kind in enumerate(kinds)]


VECTORS = (TensorSpec(name="last_hidden_state", dtype="float32", shape=("batch", "sequence", 4)),)


@pytest.mark.parametrize("mode", ["cls", "mean"])
def test_sentence_vectors_are_pooled_as_their_modules_say(write: Any, mode: str) -> None:
    kinds = modules("x.Transformer", POOLING)
    place = kinds[1]["path"]
    pooling = {f"pooling_mode_{mode}_token{'s' if mode == 'mean' else ''}": True}
    folder = write(config={}, modules=kinds, **{f"{place}__config": pooling})
    (step,) = processing(folder, "feature-extraction", TOKENS, VECTORS).after
    assert step.options.get("mode", "mean") == mode
    assert step.options["normalize"] is False


@pytest.mark.parametrize(
    ("kinds", "pooling", "said"),
    [
        (("x.Transformer", POOLING, "x.CNN"), {}, "module 'CNN' is not supported"),
        (("x.Transformer",), {}, "does not pool"),
        (("x.Transformer", POOLING), {"pooling_mode_best": True}, "pooling_mode_best"),
        (("x.Transformer", POOLING), {}, "pools by nothing"),
    ],
)
def test_modules_that_no_step_can_do_are_named(
    write: Any, kinds: Any, pooling: Any, said: str
) -> None:
    found = modules(*kinds)
    folder = write(config={}, modules=found, **{f"{found[-1]['path']}__config": pooling})
    with pytest.raises(SourceError, match=said):
        processing(folder, "feature-extraction", TOKENS, VECTORS)


def test_layers_behind_the_pooling_are_left_to_the_graph(write: Any) -> None:
    kinds = modules("x.Transformer", POOLING, DENSE, "x.Dropout", "x.Normalize")
    pooling = {"pooling_mode_mean_tokens": True}
    settings = {
        "prompts": {"query": "query: "}, "default_prompt_name": "query", "similarity_fn_name": "dot"
    }  # fmt: skip
    folder = write(
        config={}, modules=kinds, config_sentence_transformers=settings,
        **{f"{kinds[1]['path']}__config": pooling},
    )  # fmt: skip
    (step,) = processing(folder, "feature-extraction", TOKENS, VECTORS).after
    assert step.options == {
        "output": "sentence_embedding", "mode": "none", "similarity": "dot",
        "prompts": {"query": "query: "}, "prompt": "query",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "value", "where"),
    [
        ("config_sentence_transformers", {"similarity_fn_name": "tanimoto"}, "similarity_fn_name"),
        ("1_oling__config", {"pooling_mode_cls_token": True, "include_prompt": False}, "prompt"),
    ],
)
def test_settings_of_sentences_that_are_not_supported_are_named(
    write: Any, setting: str, value: Any, where: str
) -> None:
    files = {
        "config_sentence_transformers": {"prompts": {"query": "query: "}},
        "1_oling__config": {"pooling_mode_mean_tokens": True},
    }
    folder = write(config={}, modules=modules("x.Transformer", POOLING), **files | {setting: value})
    with pytest.raises(SourceError) as caught:
        processing(folder, "feature-extraction", TOKENS, VECTORS)
    assert where in str(caught.value.where)


def test_old_sound_models_need_not_name_their_extractor(write: Any) -> None:
    extractor = {"sampling_rate": 8000, "do_normalize": True}
    folder = write(
        config={"model_type": "wav2vec2", "conv_stride": [5, 2, 2]},
        preprocessor_config=extractor,
        vocab={"<pad>": 0, "|": 1},
    )
    found = processing(folder, "automatic-speech-recognition", SOUND, logits("frames", 2))
    assert (found.before[0].op, found.before[0].options["rate"]) == ("waveform", 8000)
    assert found.after[0].options["seconds"] == 20 / 8000
    assert found.files == {"vocab.json": folder.path / "vocab.json"}


def test_text_beside_a_picture_is_left_to_arrays(write: Any) -> None:
    picture = TensorSpec(name="pixel_values", dtype="float32", shape=("batch", 3, 32, 32))
    found = processing(write(config={}), "feature-extraction", (*TOKENS, picture), VECTORS)
    assert found.before == found.after == ()


def test_letters_of_many_languages_are_refused(write: Any) -> None:
    folder = write(
        config={"model_type": "wav2vec2"},
        preprocessor_config={"sampling_rate": 16000},
        vocab={"eng": {"a": 0}},
    )
    with pytest.raises(SourceError, match="letters"):
        processing(folder, "automatic-speech-recognition", SOUND, logits("frames", 2))


def test_a_folder_without_weights_is_named_before_any_toolchain(write: Any, tmp_path: Path) -> None:
    write(config={"model_type": "bert", "architectures": ["BertModel"]})
    with pytest.raises(SourceError, match=r"no \*.safetensors or \*.bin file"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", "version https://git-lfs.github.com/spec/v1"),
        ("model.safetensors.index.json", '{"weight_map": {"x": "model-00002.safetensors"}}'),
        ("tokenizer.json", "version https://git-lfs.github.com/spec/v1"),
        ("preprocessor_config.json", '{"size": '),
    ],
)
def test_a_download_that_was_cut_off_is_named_before_any_toolchain(
    write: Any, tmp_path: Path, name: str, content: str
) -> None:
    write(config={"model_type": "bert", "architectures": ["BertModel"]})
    save_file({"x": np.zeros(2, np.float32)}, tmp_path / "model-00001.safetensors")
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path)
    assert caught.value.where == str(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pytorch_model.bin", b"PK\x03\x04 a zip archive without its end"),
        ("pytorch_model.bin", b"version https://git-lfs.github.com/spec/v1"),
        ("pytorch_model.bin.index.json", b'{"weight_map": {"x": "pytorch_model-2.bin"}}'),
    ],
)
def test_a_damaged_pickle_is_named_before_any_toolchain(
    write: Any, tmp_path: Path, name: str, content: bytes
) -> None:
    write(config={"model_type": "bert", "architectures": ["BertModel"]})
    (tmp_path / "pytorch_model-1.bin").write_bytes(b"\x80\x02 an old one")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path)
    assert caught.value.where == str(tmp_path / name)
    assert caught.value.remedy


def test_every_file_of_the_model_is_in_its_digest(write: Any, tmp_path: Path) -> None:
    folder = write(config={}, modules=[], **{"1_Pooling__config": {}})
    (tmp_path / "model.safetensors").write_bytes(b"x")
    (tmp_path / "2_Dense").mkdir()
    found = [folder.digest()]
    names = (
        "config.json", "1_Pooling/config.json", "vocab.txt", "model.safetensors", "source.spm",
        "2_Dense/model.safetensors", "2_Dense/pytorch_model.bin",
    )  # fmt: skip
    for name in names:
        (tmp_path / name).write_text("y")
        found.append(folder.digest())
    (tmp_path / "README.md").write_text("no part of the model")
    assert len(set(found)) == len(names) + 1
    assert folder.digest() == found[-1]


def test_what_is_no_program_is_refused_before_any_toolchain(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"not a program of torch\.export"):
        open_source(tmp_path / "net.pt2")
