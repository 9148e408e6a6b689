from __future__ import annotations

import json

import numpy as np
import pytest

from converters.preprocessors import read_preprocessor
from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import SourceError
from tests.runtime import test_audio, test_image
from tests.runtime.reference.make_media import PICTURES, SOUNDS

pytestmark = pytest.mark.converts

RANKS = {"image": 4, "Wav2Vec2": 2, "Whisper": 3, "AST": 3}


def model_input(*shape: int | str, name: str = "x") -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape)


PICTURE = [model_input("batch", 3, "height", "width")]


def config(arrays: np.lib.npyio.NpzFile, name: str) -> dict[str, object]:
    return json.loads(str(arrays[f"{name}.config"]))


@pytest.mark.parametrize("name", PICTURES)
def test_image_processors_become_the_step_that_equals_them(name):
    read = read_preprocessor(config(test_image.REFERENCE, name), PICTURE, "file")
    assert read == test_image.STEPS[name]


@pytest.mark.parametrize("name", SOUNDS)
def test_feature_extractors_become_the_step_that_equals_them(name):
    inputs = [model_input(*["batch", "a", "b"][: RANKS[SOUNDS[name][0]]])]
    read = read_preprocessor(config(test_audio.REFERENCE, name), inputs, "file")
    assert read == test_audio.STEPS[name]


def test_names_of_old_are_known():
    old = {"feature_extractor_type": "ViTFeatureExtractor", "size": 224, "do_center_crop": None}
    assert read_preprocessor(old, PICTURE, "file").size == (224, 224)
    fast = {"image_processor_type": "ViTImageProcessorFast", "size": {"height": 8, "width": 9}}
    assert read_preprocessor(fast, PICTURE, "file").size == (8, 9)


def test_large_convnext_is_not_cropped():
    given = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}}
    step = read_preprocessor(given, PICTURE, "file")
    assert (step.size, step.shorter, step.crop) == ((384, 384), None, None)


def test_layout_and_mask_follow_the_model():
    last = [model_input("batch", 8, 8, 3)]
    vit = {"image_processor_type": "ViTImageProcessor"} | {"size": 8, "do_pad": True, "pad_size": 9}
    step = read_preprocessor(vit, last, "file")
    assert (step.layout, step.pad) == ("NHWC", (9, 9))
    masked = [model_input(1, 1000), model_input(1, 1000, name="attention_mask")]
    masked[1] = TensorSpec(name="attention_mask", dtype="int64", shape=(1, 1000))
    sound = read_preprocessor({"feature_extractor_type": "Wav2Vec2FeatureExtractor"}, masked, "f")
    assert (sound.mask, sound.samples, sound.normalize) == ("attention_mask", 1000, True)


VIT = {"image_processor_type": "ViTImageProcessor"}


@pytest.mark.parametrize(
    ("given", "inputs", "message"),
    [
        ({"image_processor_type": "SamImageProcessor"}, PICTURE, "SamImageProcessor is none of"),
        ({}, PICTURE, "a processor without a type"),
        (VIT | {"size": {"longest_edge": 9}}, PICTURE, "is no height and width"),
        (VIT | {"size": 9, "resample": 6}, PICTURE, "6 is no filter"),
        (VIT | {"size": 9, "image_mean": [0.5]}, PICTURE, "need 3 values"),
        (VIT | {"size": "large"}, PICTURE, r"Expected .* - at `\$.size`"),
        (VIT | {"size": 9, "do_pad": True}, PICTURE, "pad_size: None is no height and width"),
        (VIT | {"size": 9}, [model_input(3, 4)], "one input of rank 4, the model has 0"),
        ({"feature_extractor_type": "WhisperFeatureExtractor"}, PICTURE, "the model has 0"),
    ],
)
def test_what_no_step_can_do_is_said(given, inputs, message):
    with pytest.raises(SourceError, match=message):
        read_preprocessor(given, inputs, "preprocessor_config.json")
