from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest

import edge_sdk
from edge_sdk.bundle import record as rec
from edge_sdk.errors import BundleError, DataError, InputError
from edge_sdk.runtime.media.sound import clips, mono, prepare_waveform, resample
from edge_sdk.runtime.media.spectrogram import prepare_spectrogram
from edge_sdk.runtime.media.wav import read_wav
from edge_sdk.runtime.steps import Ctc, Labels, Spectrogram, Waveform, to_step
from edge_sdk.runtime.tasks.speech import windows
from tests.runtime import onnx_bytes as ob
from tests.runtime.bundles import HERE, Builder, onnx, spec
from tests.runtime.reference.make_media import RATES, SOUNDS, sound

REFERENCE = np.load(Path(__file__).with_name("reference") / "sounds.npz")
KALDI = {
    "fft": 512,
    "window": 400,
    "periodic": False,
    "centered": False,
    "drop_last": False,
    "remove_mean": True,
    "preemphasis": 0.97,
    "bands": 64,
    "low": 20.0,
    "scale": "kaldi",
    "equal_area": False,
    "log": "log",
    "floor": 2.0**-23,
    "dynamic_range": None,
    "frames_first": True,
}
# What a converter makes of the configurations beside the arrays (tests/converters checks that).
STEPS = {
    "wav2vec2": Waveform(input="x", normalize=True),
    "wav2vec2-plain": Waveform(input="x"),
    "whisper": Spectrogram(input="x", samples=16_000, high=8000.0),
    "whisper-large": Spectrogram(input="x", samples=16_000, high=8000.0, bands=128),
    "ast": Spectrogram(input="x", **KALDI, frames=60, mean=-4.2677393, std=2 * 4.5689974),
    "ast-cut": Spectrogram(input="x", **KALDI, frames=20, mean=0.0, std=1.0),
}


def prepared(samples: np.ndarray, step: Waveform | Spectrogram) -> dict[str, np.ndarray]:
    prepare = prepare_waveform if isinstance(step, Waveform) else prepare_spectrogram
    return prepare(samples, step)


@pytest.mark.parametrize("name", SOUNDS)
def test_values_are_those_of_transformers(name):
    found = prepared(sound(), STEPS[name])["x"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, REFERENCE[f"{name}.values"], rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize(("before", "after"), RATES)
def test_resampling_is_that_of_scipy(before, after):
    found = resample(sound(before, 0.1), before, after)
    np.testing.assert_allclose(found, REFERENCE[f"resample.{before}.{after}"], atol=1e-6)


def test_cepstrum_is_the_orthonormal_cosine_transform():
    plain = Spectrogram(input="x", bands=8, dynamic_range=None, mean=0.0, std=1.0)
    bands = prepared(sound(), plain)["x"][0].astype(np.float64)
    options = {name: getattr(plain, name) for name in ("input", "bands", "dynamic_range")}
    mfcc = Spectrogram(**options, mean=0.0, std=1.0, coefficients=8)
    found = prepared(sound(), mfcc)["x"][0]
    np.testing.assert_allclose((found**2).sum(axis=0), (bands**2).sum(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found[0], bands.sum(axis=0) / np.sqrt(8), rtol=1e-4)


def test_masks_say_what_is_padding():
    step = Waveform(input="x", mask="m", samples=9_000, normalize=True)
    found = prepared(sound(), step)
    assert found["m"].sum() == 8_000
    assert found["x"].shape == found["m"].shape == (1, 9_000)
    assert abs(found["x"][0, :8_000].mean()) < 1e-6
    assert not found["x"][0, 8_000:].any()
    bands = prepared(sound(), Spectrogram(input="x", mask="m", frames=70))
    assert bands["m"].sum() == 50
    assert bands["m"].shape == (1, 70)


def test_silence_is_finite():
    silence = np.zeros(16_000, np.float32)
    assert np.isfinite(prepared(silence, STEPS["whisper"])["x"]).all()
    assert np.isfinite(prepared(silence, STEPS["wav2vec2"])["x"]).all()
    assert np.isfinite(prepared(silence, STEPS["ast"])["x"]).all()


def test_a_clip_shorter_than_a_frame_is_refused():
    with pytest.raises(DataError, match="399 samples are too short a clip, one frame takes 400"):
        prepared(sound()[:399], STEPS["ast"])
    with pytest.raises(DataError, match="one frame takes 201"):
        prepared(sound()[:200], Spectrogram(input="x"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros(0, np.float32), "has no samples"),
        (np.zeros((0, 2), np.int16), "has no samples"),
        (np.zeros((2, 16_000), np.float32), r"swap its axes: audio\.T"),
        (np.zeros((2, 3, 4, 5)), r"audio 0: \[3, 4, 5\] is no sound's shape"),
        (np.zeros(4, np.complex64), "complex64 is no sound"),
        (3.5, "expected sound, given float"),
        ([np.zeros(8), np.zeros(0)], "audio 1: has no samples"),
    ],
)
def test_what_is_no_sound_is_said(given, message):
    with pytest.raises(DataError, match=message):
        clips(given, 16_000)


@pytest.mark.parametrize("rate", [0, -1, 999, 10**7])
def test_impossible_rates_are_refused(rate):
    with pytest.raises(DataError, match=r"no rate of sound(\n.*)?give one from 1000 to 768000"):
        clips(np.zeros(8), 16_000, rate or -5)


def test_integers_span_their_range_and_channels_are_averaged():
    for dtype, low, high in (
        ("int16", -(2**15), 2**14),
        ("uint8", 0, 192),
        ("int32", -(2**31), 2**30),
    ):
        found = mono(np.array([low, high], dtype), "audio")
        np.testing.assert_array_equal(found, np.float32([-1, 0.5]))
    stereo = mono(np.float32([[1, 0], [0.5, -0.5]]), "audio")
    np.testing.assert_array_equal(stereo, np.float32([0.5, 0]))


def riff(path: Path, form: int, bits: int, rate: int, channels: int, data: bytes) -> Path:
    frame = channels * bits // 8
    header = struct.pack("<HHIIHH", form, channels, rate, rate * frame, frame, bits)
    chunks = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    chunks += b"fmt " + struct.pack("<I", len(header)) + header
    chunks += b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    return path


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_integer_wav_files_are_read(tmp_path, width):
    values = np.array([[-0.5, 0.25], [0.75, -1.0], [0.0, 0.5]])
    whole = (values * 2 ** (8 * width - 1)).astype(np.int64) + (128 if width == 1 else 0)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(width)
        file.setframerate(8_000)
        file.writeframes(
            b"".join(int(v).to_bytes(width, "little", signed=width > 1) for v in whole.flat)
        )
    samples, rate = read_wav(tmp_path / "a.wav")
    assert rate == 8_000
    np.testing.assert_allclose(mono(samples, "a"), values.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("bits", [32, 64])
def test_float_wav_files_are_read(tmp_path, bits):
    values = np.array([-0.5, 0.25, 1.0], f"<f{bits // 8}")
    path = riff(tmp_path / "a.wav", 3, bits, 16_000, 1, values.tobytes())
    [found] = clips(path, 16_000)
    np.testing.assert_array_equal(found, values.astype(np.float32))


def test_a_recording_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path):
    path = riff(tmp_path / "a.wav", 1, 16, 16_000, 2, np.arange(8, dtype="<i2").tobytes())
    path.write_bytes(path.read_bytes()[:-3])
    samples, _ = read_wav(path)
    np.testing.assert_array_equal(samples, [[0, 1], [2, 3], [4, 5]])


@pytest.mark.parametrize(
    "content", [b"", b"RIFF....WAVE", b"fLaC", b"RIFF\0\0\0\0WAVEfmt \x04\0\0\0abcddata\0\0\0\0"]
)
def test_what_is_no_wav_names_the_remedy(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DataError, match="convert it to PCM: ffmpeg"):
        read_wav(tmp_path / "a.wav")


def test_other_encodings_are_refused(tmp_path):
    with pytest.raises(DataError, match="its encoding is 7 with 8 bits"):
        read_wav(riff(tmp_path / "a.wav", 7, 8, 8_000, 1, b"abc"))
    with pytest.raises(DataError, match="No such file"):
        read_wav(tmp_path / "b.wav")


def test_a_file_knows_its_rate(tmp_path):
    path = riff(tmp_path / "a.wav", 1, 16, 8_000, 1, bytes(800))
    [found] = clips(path, 16_000)
    assert len(found) == 800
    with pytest.raises(DataError, match=r"has 8000 samples per second, not 16000(\n.*)?leave"):
        clips(path, 16_000, 16_000)


def test_windows_cover_a_clip_and_share_their_margins():
    assert list(windows(10, 10, 2)) == [(0, 10)]
    assert list(windows(23, 10, 2)) == [(0, 10), (6, 16), (12, 22), (18, 23)]
    assert list(windows(25, 10, 0)) == [(0, 10), (10, 20), (20, 25)]


FRAME = 4


def speller(path, **options):
    """Letter i where a frame of four samples has the sum i: a convolution, and distances."""
    options = {"samples": None, "window": 30.0} | options
    with Builder(path) as builder:
        nodes = [
            ob.node("Reshape", ["x", "shape"], ["frames"]),
            ob.node("ReduceSum", ["frames", "axes"], ["sums"], keepdims=1),
            ob.node("Sub", ["sums", "letters"], ["away"]),
            ob.node("Abs", ["away"], ["far"]),
            ob.node("Neg", ["far"], ["y"]),
        ]
        inputs = [spec("x", [1, options["samples"] or "samples"])]
        outputs = [spec("y", [1, "frames", 4])]
        constants = {
            "shape": np.int64([1, -1, FRAME]),
            "axes": np.int64([2]),
            "letters": np.arange(4, dtype=np.float32),
        }
        graph = onnx(nodes, inputs, outputs, [ob.tensor(*item) for item in constants.items()])
        builder.opaque("onnx", [graph], inputs, outputs)
        builder.variant(
            preprocess=(to_step(Waveform(input="x", rate=1_000, samples=options["samples"])),),
            postprocess=(
                to_step(Ctc(output="y", seconds=FRAME / 1_000, window=options["window"])),
            ),
            files=(rec.File(path="vocab.json", blob=builder.blob(options["vocabulary"])),),
        )
    return edge_sdk.load(path, HERE)


def spoken(letters: str) -> np.ndarray:
    names = {"_": 0, "a": 1, "b": 2, " ": 3}
    return np.repeat([names[letter] / FRAME for letter in letters], FRAME).astype(np.float32)


JSON = b'{"<pad>": 0, "a": 1, "b": 2, "|": 3}'


@pytest.mark.parametrize(
    "options",
    [{}, {"window": 0.048}, {"window": 0.001}, {"samples": 48}, {"samples": 96}],
    ids=str,
)
def test_speech_is_transcribed_whatever_the_window(tmp_path, options):
    model = speller(tmp_path / "b", vocabulary=JSON, **options)
    found = model.transcribe(spoken("__aab_b a__ bb_" + "_ab " * 20))
    assert found.text == "abb a bab" + " ab" * 19
    first = found.words[0]
    assert (first.text, first.start, first.end) == ("abb", 2 * 0.004, pytest.approx(7 * 0.004))


def test_silence_says_nothing(tmp_path):
    found = speller(tmp_path / "b", vocabulary=JSON).transcribe(np.zeros(400, np.float32))
    assert (found.text, found.words) == ("", ())


def test_bad_speech_is_said(tmp_path):
    model = speller(tmp_path / "b", vocabulary=JSON)
    with pytest.raises(DataError, match="has no samples"):
        model.transcribe(np.zeros(0, np.float32))
    with pytest.raises(DataError, match="holds 2 clips"):
        model.transcribe([np.zeros(8), np.zeros(8)])
    with pytest.raises(InputError, match="cannot be told language or task"):
        model.transcribe(np.zeros(8), language="de")
    with pytest.raises(InputError, match=r"cannot tag texts(.|\n)*use transcribe\(\)"):
        model.tag("text")


@pytest.mark.parametrize(
    ("vocabulary", "message"), [(b"[]", "Expected `object`"), (b'{"a": 1}', "has no token 0")]
)
def test_a_broken_vocabulary_is_a_bundle_error(tmp_path, vocabulary, message):
    model = speller(tmp_path / "b", vocabulary=vocabulary)
    with pytest.raises(BundleError, match=message):
        model.transcribe(np.zeros(400, np.float32))


def alarm(path):
    """A clip is as loud as its loudest sample."""
    with Builder(path) as builder:
        nodes = [
            ob.node("Abs", ["x"], ["loud"]),
            ob.node("ReduceMax", ["loud"], ["peak"], keepdims=1),
            ob.node("Mul", ["peak", "w"], ["y"]),
        ]
        builder.graph(
            nodes, [spec("x", ["batch", "samples"])], [spec("y", ["batch", 2])],
            {"w": np.float32([[-1, 1]])},
        )  # fmt: skip
        builder.variant(
            preprocess=(to_step(Waveform(input="x", rate=8_000)),),
            postprocess=(to_step(Labels(output="y", names=("quiet", "loud"))),),
        )
    return edge_sdk.load(path, HERE)


def test_sounds_are_classified_at_any_rate(tmp_path):
    model = alarm(tmp_path / "b")
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(4_410) / 44_100)
    path = riff(tmp_path / "a.wav", 1, 16, 44_100, 1, (tone * 2**15).astype("<i2").tobytes())
    [[from_array, _]] = model.classify(tone, rate=44_100)
    [[from_file, _]] = model.classify(path)
    assert from_array.label == from_file.label == "loud"
    assert from_array.score == pytest.approx(0.5, abs=0.02)
    assert from_file.score == pytest.approx(from_array.score, abs=1e-4)
