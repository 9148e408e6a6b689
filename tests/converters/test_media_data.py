"""Pictures, sounds and questions as data, and from a processor's file to a picture's class."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import edge_sdk
from converters import convert
from converters.comparison import Request, compare
from converters.data import load_data
from converters.source import open_source
from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import DataError
from edge_sdk.runtime.steps import Image, Tokenize, Waveform, parse_steps
from tests.runtime.bundles import tokenizer_json
from tests.runtime.test_image import ppm

pytestmark = pytest.mark.converts

PIXELS = TensorSpec(name="x", dtype="float32", shape=("batch", 3, 2, 2))
SAMPLES = TensorSpec(name="s", dtype="float32", shape=("batch", "samples"))
IMAGE = Image(input="x", size=(2, 2), resample="box")
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def plain(colour: str, side: int = 4) -> np.ndarray:
    return np.full((side, side, 3), COLOURS[colour], np.uint8)


def pictures(folder: Path, count: int = 4) -> Path:
    for colour in COLOURS:
        (folder / colour).mkdir(parents=True)
        for i in range(count):
            ppm(folder / colour / f"{i}.ppm", plain(colour, 2 + i))
    return folder


def test_folders_of_pictures_name_their_classes(tmp_path: Path) -> None:
    data = load_data(
        pictures(tmp_path / "d"), [PIXELS], classes=("red", "green", "blue"), steps=[IMAGE]
    )
    assert data.labels is not None
    assert data.labels.tolist() == [2] * 4 + [1] * 4 + [0] * 4  # files in order of their paths
    for (feeds,), label in zip(data.samples, data.labels, strict=True):
        assert feeds["x"].shape == (1, 3, 2, 2)
        assert feeds["x"][0, :, 0, 0].argmax() == label


def test_pictures_without_folders_have_no_labels(tmp_path: Path) -> None:
    ppm(tmp_path / "a.ppm", plain("red"))
    assert load_data(tmp_path, [PIXELS], steps=[IMAGE]).labels is None
    (tmp_path / "green").mkdir()
    ppm(tmp_path / "green" / "a.ppm", plain("green"))
    with pytest.raises(DataError, match="only 1 of 2 samples have labels"):
        load_data(tmp_path, [PIXELS], steps=[IMAGE])


def test_sounds_are_resampled_like_on_a_device(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(bytes(1_600))
    data = load_data(tmp_path, [SAMPLES], steps=[Waveform(input="s")])
    assert data.samples[0][0]["s"].shape == (1, 1_600)


def test_media_for_a_model_that_does_not_say_how_is_refused(tmp_path: Path) -> None:
    file = ppm(tmp_path / "a.ppm", plain("red"))
    with pytest.raises(DataError, match="preprocessor_config") as error:
        load_data(tmp_path, [PIXELS])
    assert error.value.where == str(file)
    with pytest.raises(DataError, match="does not say how"):
        load_data(tmp_path, [SAMPLES], steps=[Waveform(input="s")])


def lines(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_pairs_and_questions_are_tokenised_as_the_runtime_does(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_bytes(tokenizer_json())
    inputs = [TensorSpec(name=name, dtype="int64", shape=("b", "n")) for name in ("ids", "types")]
    step = Tokenize(inputs={"ids": "ids", "types": "types"}, max_length=7, stride=1)
    path = lines(
        tmp_path / "d.jsonl",
        {"text": ["red", "sky"]},
        {"question": "red", "context": "sky blue sky blue red"},
    )
    samples = load_data(path, inputs, tokenizer=tokenizer, steps=[step]).samples
    assert [sample[0]["ids"].tolist() for sample in samples] == [
        [[2, 4, 3, 7, 3]],
        [[2, 4, 3, 7, 6, 7, 3]],
        [[2, 4, 3, 7, 6, 4, 3]],
    ]
    assert samples[0][0]["types"].tolist() == [[0, 0, 0, 1, 1]]
    bad = lines(tmp_path / "bad.jsonl", {"question": "red"})
    with pytest.raises(DataError, match="neither a text nor a question and its context"):
        load_data(bad, inputs, tokenizer=tokenizer)


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """A model whose class is the strongest channel, with its processor's file beside it."""
    weights = np.eye(3, dtype=np.float32)[:, :, None, None].repeat(2, 2).repeat(2, 3)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["pixels", "w"], ["y"], kernel_shape=[2, 2]),
            helper.make_node("Flatten", ["y"], ["logits"]),
        ],
        "colours",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 2, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder = tmp_path / "model"
    folder.mkdir()
    onnx.save(model, folder / "colours.onnx")
    (folder / "labels.json").write_text('["red", "green", "blue"]')
    config = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 2, "width": 2},
        "resample": 4,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return folder / "colours.onnx"


def test_a_processors_file_beside_a_graph_becomes_its_step(colours: Path) -> None:
    source = open_source(colours)
    [step] = parse_steps(source.preprocess)
    assert (step.input, step.size, step.resample) == ("pixels", (2, 2), "box")
    config = colours.parent / "preprocessor_config.json"
    config.write_text('{"image_processor_type": "DetrImageProcessor"}')
    assert open_source(colours).preprocess == ()


def test_pictures_convert_and_classify(colours: Path, tmp_path: Path) -> None:
    convert(colours, ["x86-64"], tmp_path / "out", data=pictures(tmp_path / "d"), metric="top1")
    with edge_sdk.load(tmp_path / "out", "x86-64") as model:
        assert model.tasks == ("classify",)
        for colour in COLOURS:
            [[best]] = model.classify(plain(colour, 9), top=1)
            assert best.label == colour
            assert best.score > 0.9
        report = model.record.agreement
    assert report.metrics["top1"] == (1.0, 1.0)


def test_pictures_compare(colours: Path, tmp_path: Path) -> None:
    data = pictures(tmp_path / "d")
    convert(colours, ["x86-64"], tmp_path / "out", data=data, metric="top1")
    subjects = (str(colours), f"{tmp_path / 'out'}@x86-64")
    found = compare(Request(subjects, data, "top1", threads=(1,), seconds=0.05))
    assert found.samples == 12
    assert [row.metrics for row in found.rows] == [{"top1": 1.0}] * 2
