from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import edge_sdk
from edge_sdk.errors import BundleError, DataError, InputError
from edge_sdk.runtime.media.image import check_picture, pictures, prepare
from edge_sdk.runtime.media.resize import resize
from edge_sdk.runtime.steps import Image, Labels, Sigmoid, Step, parse_steps, to_step
from tests.runtime import onnx_bytes as ob
from tests.runtime.bundles import HERE, Builder, spec
from tests.runtime.reference.make_media import FILTERS, PICTURES, SIZES, picture

REFERENCE = np.load(Path(__file__).with_name("reference") / "pictures.npz")
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
OPENAI = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}
# What a converter makes of the configurations beside the arrays (tests/converters checks that).
STEPS = {
    "vit": Image(input="x", size=(16, 20), **HALF),
    "vit-old": Image(input="x", size=(12, 12), resample="bicubic", **HALF),
    "deit": Image(input="x", size=(20, 20), crop=(14, 14), resample="bicubic", **HALF),
    "beit": Image(input="x", size=(9, 17), crop=(15, 15), resample="bicubic", **HALF),
    "convnext": Image(input="x", shorter=16, crop=(14, 14), resample="bicubic", **HALF),
    "mobilenet": Image(input="x", shorter=18, crop=(14, 16), **HALF),
    "mobilevit": Image(input="x", shorter=16, crop=(14, 14), channels="BGR"),
    "efficientnet": Image(
        input="x", size=(13, 13), resample="nearest", mean=HALF["mean"], std=(0.25,) * 3
    ),
    "efficientnet-offset": Image(
        input="x", size=(13, 13), resample="lanczos", scale=1 / 127.5, offset=-1.0, **HALF
    ),
    "poolformer": Image(input="x", shorter=15, crop=(14, 14), resample="bicubic", **IMAGENET),
    "poolformer-square": Image(
        input="x", shorter=13, crop=(12, 12), resample="bicubic", **IMAGENET
    ),
    "levit": Image(input="x", shorter=16, crop=(14, 14), resample="bicubic", **IMAGENET),
    "clip": Image(input="x", shorter=15, crop=(13, 13), resample="bicubic", **OPENAI),
    "siglip": Image(input="x", size=(14, 14), resample="bicubic", **HALF),
    "bit": Image(input="x", shorter=16, crop=(14, 14), resample="bicubic", **OPENAI),
    "no-resize": Image(input="x"),
    "raw": Image(input="x", size=(8, 8), resample="hamming", scale=1.0),
}


@pytest.mark.parametrize("name", PICTURES)
def test_values_are_those_of_transformers(name):
    found = prepare(picture(), STEPS[name], "float32")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, REFERENCE[f"{name}.values"])


@pytest.mark.parametrize("name", FILTERS)
def test_bytes_are_those_of_pillow(name):
    for height, width in SIZES:
        expected = REFERENCE[f"resize.{name}.{height}x{width}"]
        np.testing.assert_array_equal(resize(picture(), height, width, name), expected)


def test_grey_is_that_of_pillow():
    step = Image(input="x", channels="L", scale=1.0)
    found = prepare(picture(), step, "uint8")
    np.testing.assert_array_equal(found[0, 0], REFERENCE["grey"])


def test_channels_last_and_bytes_for_an_integer_input():
    step = Image(input="x", layout="NHWC", scale=1.0)
    np.testing.assert_array_equal(prepare(picture(), step, "uint8"), picture()[None])
    signed = prepare(picture(), Image(input="x", layout="NHWC", scale=1.0, offset=-128.0), "int8")
    np.testing.assert_array_equal(signed, (picture().astype(int) - 128)[None])


def test_grey_pictures_fill_three_channels():
    grey = check_picture(picture()[:, :, 0], "image")
    found = prepare(grey, Image(input="x", scale=1.0), "float32")
    np.testing.assert_array_equal(found[0], np.stack([picture()[:, :, 0]] * 3))


def test_padding_is_right_and_below():
    found = prepare(picture(3, 4), Image(input="x", pad=(5, 6), mean=(1.0,) * 3), "float32")
    assert found.shape == (1, 3, 5, 6)
    assert found[:, :, 3:].max() == found[:, :, :, 4:].max() == 0
    with pytest.raises(DataError, match="33 x 45 is larger than 5 x 6"):
        prepare(picture(), Image(input="x", pad=(5, 6)), "float32")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 4, 4), np.uint8), "leave its alpha channel out"),
        (np.zeros((4, 4, 2), np.uint8), r"\[4, 4, 2\] is no picture's shape"),
        (np.zeros(4, np.uint8), "no picture's shape"),
        (np.zeros((0, 4, 3), np.uint8), "no picture's shape"),
        (np.zeros((4, 4, 3), np.float32), r"scale it: \(image \* 255\)"),
        (np.full((4, 4, 3), 9.0), r"given float64(\n.*)?give uint8"),
        (np.zeros((4, 4, 3), np.int64), "expected bytes, given int64"),
        (7, "expected a picture, given int"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8)], "image 1: "),
    ],
)
def test_what_is_no_picture_is_said(given, message):
    with pytest.raises(DataError, match=message):
        pictures(given)


def ppm(path: Path, image: np.ndarray) -> Path:
    kind = b"P6" if image.ndim == 3 else b"P5"
    size = f"{image.shape[1]} {image.shape[0]}".encode()
    path.write_bytes(kind + b"\n# a comment\n" + size + b"\n255\n" + image.tobytes())
    return path


def test_npy_and_pnm_files_need_no_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    np.save(tmp_path / "a.npy", picture())
    files = [
        tmp_path / "a.npy",
        ppm(tmp_path / "b.ppm", picture()),
        ppm(tmp_path / "c.pgm", picture()[:, :, 0]),
    ]
    first, second, grey = pictures(files)
    np.testing.assert_array_equal(first, picture())
    np.testing.assert_array_equal(second, picture())
    np.testing.assert_array_equal(grey, picture()[:, :, :1])


def test_other_files_without_pillow_name_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"pip install 'edge-sdk\[image\]'"):
        pictures(tmp_path / "a.png")


def test_pillow_reads_what_is_upright_and_rgb(tmp_path):
    pillow = pytest.importorskip("PIL.Image", reason="the [image] extra is not installed")
    image = pillow.fromarray(picture())
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.convert("RGBA").save(tmp_path / "a.png", exif=exif)
    [found] = pictures(str(tmp_path / "a.png"))
    np.testing.assert_array_equal(found, np.rot90(picture(), -1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P6\n4 4\n255\n" + bytes(47), "do not fit the file"),
        (b"P6\n4 4\n65535\n" + bytes(96), "do not fit the file"),
        (b"P6 what", "no complete header"),
    ],
)
def test_broken_pnm_is_said(tmp_path, content, message):
    (tmp_path / "a.ppm").write_bytes(content)
    with pytest.raises(DataError, match=message):
        pictures(tmp_path / "a.ppm")


def test_broken_files_are_said(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"a\.npy: cannot be read"):
        pictures(tmp_path / "a.npy")
    with pytest.raises(DataError, match="No such file"):
        pictures(tmp_path / "b.png")


def judge(path, *, step=None, sigmoid=True):
    """Class i is channel i of a picture of one pixel."""
    with Builder(path) as builder:
        builder.graph(
            [ob.node("Flatten", ["x"], ["y"])],
            [spec("x", ["batch", 3, 1, 1])],
            [spec("y", ["batch", 3])],
        )
        after = [
            *([Sigmoid(output="y")] if sigmoid else []),
            Labels(output="y", names=tuple("rgb")),
        ]
        before = step or Image(input="x", size=(1, 1), resample="box")
        builder.variant(
            preprocess=(to_step(before),), postprocess=tuple(to_step(each) for each in after)
        )
    return edge_sdk.load(path, HERE)


def test_pictures_are_classified_one_or_several(tmp_path):
    model = judge(tmp_path / "b", sigmoid=False)
    red, blue = np.zeros((2, 2, 2, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    assert [best.label for [best] in model.classify(red, top=1)] == ["r"]
    np.save(tmp_path / "blue.npy", blue)
    several = model.classify([red, tmp_path / "blue.npy", str(tmp_path / "blue.npy")], top=1)
    assert [best.label for [best] in several] == ["r", "b", "b"]
    batch = model.classify(np.stack([blue, red]), top=1)
    assert [(best.label, best.score) for [best] in batch] == [("b", 1.0), ("r", 1.0)]
    arrays = model.classify({"x": np.ones((2, 3, 1, 1), np.float32)}, top=3)
    assert len(arrays) == 2


def test_independent_classes_have_a_probability_each(tmp_path):
    [row] = judge(tmp_path / "b").classify(np.full((2, 2, 3), 255, np.uint8), top=3)
    assert [c.score for c in row] == pytest.approx([1 / (1 + np.exp(-1))] * 3)


def test_a_model_of_pictures_names_what_it_can(tmp_path):
    with pytest.raises(InputError, match=r"cannot embed texts.*\n.*use classify\(\)"):
        judge(tmp_path / "b").embed("text")


def test_step_that_names_no_input_is_refused_at_load(tmp_path):
    with pytest.raises(BundleError, match=r"step 'image': names \['z'\], the variant has \['x'\]"):
        judge(tmp_path / "b", step=Image(input="z"))


@pytest.mark.parametrize(
    "options",
    [
        {"size": [0, 4]},
        {"size": [4]},
        {"std": [0.0]},
        {"mean": [0.5]},
        {"resample": "best"},
        {"colour": 1},
    ],
)
def test_options_that_make_no_sense_are_a_bundle_error(options):
    with pytest.raises(BundleError, match="image"):
        parse_steps([Step(op="image", options={"input": "x", **options})])


def test_a_record_says_only_what_is_not_the_default():
    step = Image(input="x", size=(4, 4), scale=1 / 255)
    assert to_step(step).options == {"input": "x", "size": (4, 4)}
